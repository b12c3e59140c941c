package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"

	"github.com/farrier-project/farrier/pkg/fault"
)

const tokenPrefix = "farrier-join-"

// JoinToken lets one part with one role and name join once. It carries the CA's hash, so that the secret is sent to no
// other cluster; the cluster stores only the secret's hash.
type JoinToken struct {
	CAHash    [32]byte
	ID        string // hex
	Secret    []byte // 16 random bytes
	Role      Role
	Name      string
	Group     string
	Addresses []string // API addresses of coordinators
}

type tokenJSON struct {
	CA        string   `json:"ca"`
	ID        string   `json:"id"`
	Secret    string   `json:"s"`
	Role      Role     `json:"r"`
	Name      string   `json:"n"`
	Group     string   `json:"g,omitempty"`
	Addresses []string `json:"a"`
}

// NewJoinToken draws the id and the secret.
func NewJoinToken(caHash [32]byte, role Role, name, group string, addresses []string) JoinToken {
	var b [24]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
	return JoinToken{CAHash: caHash, ID: hex.EncodeToString(b[:8]), Secret: b[8:], Role: role, Name: name, Group: group, Addresses: addresses}
}

// Hash is what the cluster stores.
func (t JoinToken) Hash() [32]byte { return sha256.Sum256(append([]byte(t.ID+"/"), t.Secret...)) }

// Encode is the token as people paste it.
func (t JoinToken) Encode() string {
	data, err := json.Marshal(tokenJSON{CA: hex.EncodeToString(t.CAHash[:]), ID: t.ID, Secret: hex.EncodeToString(t.Secret),
		Role: t.Role, Name: t.Name, Group: t.Group, Addresses: t.Addresses})
	if err != nil {
		panic("identity: a token always marshals: " + err.Error())
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(data)
}

// ParseJoinToken reads an encoded token.
func ParseJoinToken(text string) (JoinToken, error) {
	bad := func(why string) (JoinToken, error) {
		return JoinToken{}, fault.New(fault.Invalid, "read join token", "%s", why).
			WithHelp("paste the whole token as `farrier operator token`, `farrier agent token` or `farrier coordinator token` printed it")
	}
	raw, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !ok || len(raw) > 4096 {
		return bad("it does not start with " + tokenPrefix)
	}
	data, err := base64.RawURLEncoding.DecodeString(raw)
	if err != nil {
		return bad("it is cut or was changed")
	}
	var j tokenJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return bad("it is cut or was changed")
	}
	ca, err1 := hex.DecodeString(j.CA)
	s, err2 := hex.DecodeString(j.Secret)
	if err1 != nil || err2 != nil || len(ca) != 32 || len(s) != 16 || !j.Role.Valid() || j.Name == "" || len(j.Addresses) == 0 {
		return bad("it is incomplete")
	}
	return JoinToken{CAHash: [32]byte(ca), ID: j.ID, Secret: s, Role: j.Role, Name: j.Name, Group: j.Group, Addresses: j.Addresses}, nil
}
