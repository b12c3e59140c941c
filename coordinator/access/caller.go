package access

import (
	"context"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// Headers in which a coordinator that sends a request on names its caller. They are read from coordinators only.
const (
	HeaderActor      = "Farrier-Actor"
	HeaderActorGroup = "Farrier-Actor-Group"
	HeaderActorKey   = "Farrier-Actor-Key" // SHA-256 of the public key in the actor's certificate, in hex
)

// anonymousActor names a caller without a certificate.
const anonymousActor = "anonymous"

// Caller is who a request comes from.
type Caller struct {
	identity.Peer
	Anonymous bool          // no certificate: Join only
	Via       identity.Peer // the coordinator that sent the request on; zero: nobody did
}

// Actor is the caller as the log names it.
func (c Caller) Actor() string {
	if c.Anonymous {
		return anonymousActor
	}
	return c.Peer.Actor()
}

// Forwarded tells whether another coordinator sent the request on.
func (c Caller) Forwarded() bool { return c.Via.Role != "" }

// Read reads who sends a request: the certificate of its connection, and from a coordinator whom it speaks for.
func Read(r *http.Request) (Caller, error) {
	if r.TLS == nil {
		return Caller{}, fault.New(fault.Unauthenticated, "check certificate", "the connection is not encrypted")
	}
	if len(r.TLS.PeerCertificates) == 0 {
		return Caller{Anonymous: true}, nil
	}
	peer, err := identity.PeerOf(*r.TLS)
	if err != nil {
		return Caller{}, err
	}
	actor := r.Header.Get(HeaderActor)
	if peer.Role != identity.RoleCoordinator || actor == "" {
		return Caller{Peer: peer}, nil
	}
	if actor == anonymousActor {
		return Caller{Peer: identity.Peer{Cluster: peer.Cluster}, Anonymous: true, Via: peer}, nil
	}
	role, name, ok := strings.Cut(actor, " ")
	if !ok || !identity.Role(role).Valid() || name == "" {
		return Caller{}, refusal.Invalid(HeaderActor, "%q is not a role and a name", actor)
	}
	c := Caller{Via: peer, Peer: identity.Peer{Cluster: peer.Cluster, Role: identity.Role(role), Name: name, Group: r.Header.Get(HeaderActorGroup)}}
	key, err := hex.DecodeString(r.Header.Get(HeaderActorKey))
	if err != nil || len(key) != len(c.Key) {
		return Caller{}, refusal.Invalid(HeaderActorKey, "%q is not the SHA-256 of a public key", refusal.Clip(r.Header.Get(HeaderActorKey)))
	}
	copy(c.Key[:], key)
	return c, nil
}

// Write names the caller in the header of a request that is sent on.
func (c Caller) Write(h http.Header) {
	h.Del(HeaderActorGroup)
	h.Del(HeaderActorKey)
	h.Set(HeaderActor, c.Actor())
	if !c.Anonymous {
		h.Set(HeaderActorKey, hex.EncodeToString(c.Key[:]))
	}
	if c.Group != "" {
		h.Set(HeaderActorGroup, c.Group)
	}
}

type callerKey struct{}

// With puts the caller in the context of its request.
func With(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// Of is the caller that With put in; without one the caller is anonymous.
func Of(ctx context.Context) Caller {
	if c, ok := ctx.Value(callerKey{}).(Caller); ok {
		return c
	}
	return Caller{Anonymous: true}
}
