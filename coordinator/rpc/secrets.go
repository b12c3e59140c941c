package rpc

import (
	"crypto/rand"
	"fmt"
	"maps"

	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/secret"
)

// seal closes a secret for one node and field: the box opens nowhere else.
func seal(k *secret.Keyring, id node.ID, field string, plain []byte) (node.Sealed, error) {
	keyID, box, err := k.Seal(plain, "node/"+string(id)+"/"+field)
	if err != nil {
		return node.Sealed{}, fault.Wrap("seal "+field, err)
	}
	return node.Sealed{KeyID: keyID, Box: box}, nil
}

// splitInfo parts driver_info into what is stored in clear and what is sealed. A hidden value keeps the secret of
// before.
func splitInfo(k *secret.Keyring, id node.ID, info map[string]string, before map[string]node.Sealed) (map[string]string, map[string]node.Sealed, error) {
	if err := checkMap("driver_info", info, maxMap); err != nil {
		return nil, nil, err
	}
	if raw := info["redfish_address"]; raw != "" {
		if err := checkAddress(raw); err != nil {
			return nil, nil, err
		}
	}
	clear, secrets := map[string]string{}, map[string]node.Sealed{}
	for key, value := range info {
		switch old, had := before[key]; {
		case !secretKey(key):
			clear[key] = value
		case value != hidden:
			box, err := seal(k, id, key, []byte(value))
			if err != nil {
				return nil, nil, err
			}
			secrets[key] = box
		case had:
			secrets[key] = old
		default:
			return nil, nil, refusal.Invalid("driver_info."+key, "%s stands for a secret that is stored, and none is", hidden)
		}
	}
	return clear, secrets, nil
}

// mergeKey changes one key of a map and leaves the map as it was; without a value the key goes.
func mergeKey[V any](m map[string]V, key string, value V, has bool) map[string]V {
	out := maps.Clone(m)
	if out == nil {
		out = map[string]V{}
	}
	if has {
		out[key] = value
	} else {
		delete(out, key)
	}
	return out
}

// newUUID draws a version 4 UUID (RFC 9562, section 5.4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
	return formatUUID(b)
}

func formatUUID(b [16]byte) string {
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}
