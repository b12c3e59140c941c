package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// Headers of a request. HeaderClient and HeaderSequence make a repeat harmless: a client draws the first once and
// counts the second up. The actor's headers are read from coordinators only.
const (
	HeaderClient     = "Farrier-Client"
	HeaderSequence   = "Farrier-Seq"
	HeaderActor      = "Farrier-Actor"
	HeaderActorGroup = "Farrier-Actor-Group"
	// HeaderKind is on a refusal by a member that does not lead, so that a follower tries again elsewhere.
	HeaderKind = "Farrier-Kind"
)

const (
	bodyTimeout = 15 * time.Second // for the whole body of a unary request
	sendTimeout = 30 * time.Second // for one message of a stream to a slow reader
)

// gate is the HTTP side of the API: size, caller, access, and the way to the leader.
type gate struct {
	api     *API
	next    http.Handler
	writer  *connect.ErrorWriter
	methods map[string]method
}

type method struct {
	access
	streams  bool
	readOnly bool
}

func newGate(a *API, next http.Handler) *gate {
	g := &gate{api: a, next: next, writer: connect.NewErrorWriter(), methods: map[string]method{}}
	for _, s := range services() {
		for i := range s.Methods().Len() {
			m := s.Methods().Get(i)
			name := "/" + string(s.FullName()) + "/" + string(m.Name())
			g.methods[name] = method{access: table[name], streams: m.IsStreamingClient() || m.IsStreamingServer(), readOnly: isRead(m)}
		}
	}
	return g
}

func isRead(m protoreflect.MethodDescriptor) bool {
	o, ok := m.Options().(*descriptorpb.MethodOptions)
	return ok && o.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m, ok := g.methods[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	caller, err := g.caller(r)
	if err == nil {
		err = authorise(r.URL.Path, m.access, caller)
	}
	if err == nil {
		err = g.readBody(w, r, m)
	}
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	ctx, err := withRequestID(withCaller(r.Context(), caller), r.Header)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	if m.streams {
		ctx = withDeadliner(ctx, http.NewResponseController(w))
	}
	r = r.WithContext(ctx)
	if m.where == leader {
		if local, err := g.api.forward.route(ctx, caller.Via != ""); err != nil {
			g.refuse(w, r, err)
			return
		} else if !local {
			g.api.forward.serve(w, r, caller, m, g.refuse)
			return
		}
		if id := requestOf(ctx); !id.IsZero() {
			g.api.Queue.ClientSeen(id.Client)
		}
	}
	g.next.ServeHTTP(w, r)
}

// caller reads the certificate, and from a coordinator whom it speaks for.
func (g *gate) caller(r *http.Request) (Caller, error) {
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
	c := Caller{Peer: peer}
	actor := r.Header.Get(HeaderActor)
	if peer.Role != identity.RoleCoordinator || actor == "" {
		return c, nil
	}
	c.Via = peer.Name
	if actor == anonymousActor {
		c.Peer, c.Anonymous = identity.Peer{Cluster: peer.Cluster}, true
		return c, nil
	}
	role, name, ok := strings.Cut(actor, " ")
	if !ok || !identity.Role(role).Valid() || name == "" {
		return Caller{}, invalid(HeaderActor, "%q is not a role and a name", actor)
	}
	c.Peer = identity.Peer{Cluster: peer.Cluster, Role: identity.Role(role), Name: name, Group: r.Header.Get(HeaderActorGroup)}
	return c, nil
}

// readBody reads the body of a unary request, which bounds it and lets it be sent on more than once.
func (g *gate) readBody(w http.ResponseWriter, r *http.Request, m method) error {
	limit := m.max
	if limit == 0 {
		limit = maxBody
	}
	if m.streams || r.Body == nil || r.Method == http.MethodGet {
		return nil
	}
	if r.ContentLength > limit {
		return tooLarge(r.URL.Path, limit)
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout)) // not every test's writer has deadlines
	data, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	_ = rc.SetReadDeadline(time.Time{})
	if err != nil {
		return fault.New(fault.Invalid, "read request", "the body ended early: %w", err)
	}
	if int64(len(data)) > limit {
		return tooLarge(r.URL.Path, limit)
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	return nil
}

func tooLarge(what string, limit int64) error {
	return fault.New(fault.TooLarge, what, "the body is larger than %d bytes", limit).
		WithHelp("send less in one call; user and network data may be 64 KiB each, images are named by URL")
}

// refuse answers an error in the protocol of the request.
func (g *gate) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if fault.KindOf(err) == fault.Internal {
		g.api.Log.Error("request failed", "method", r.URL.Path, "err", err)
	}
	ce := ToConnect(err)
	if fault.Is(err, fault.NotLeader) {
		w.Header().Set(HeaderKind, fault.NotLeader.String())
	}
	if err := g.writer.Write(w, r, ce); err != nil {
		g.api.Log.Debug("the caller left before its refusal", "method", r.URL.Path, "err", err)
	}
}

type requestKey struct{}

// withRequestID reads the request's id, if it has one; the digest is made by the interceptor.
func withRequestID(ctx context.Context, h http.Header) (context.Context, error) {
	client, seq := h.Get(HeaderClient), h.Get(HeaderSequence)
	if client == "" && seq == "" {
		return ctx, nil
	}
	n, err := strconv.ParseUint(seq, 10, 64)
	if err != nil || n == 0 {
		return nil, invalid(HeaderSequence, "%q is not a number above zero", seq)
	}
	if len(client) < 8 || len(client) > 64 || strings.Trim(client, "0123456789abcdef-") != "" {
		return nil, invalid(HeaderClient, "a client session is 8 to 64 hex digits")
	}
	return context.WithValue(ctx, requestKey{}, command.RequestID{Client: client, Seq: n}), nil
}

func requestOf(ctx context.Context) command.RequestID {
	id, _ := ctx.Value(requestKey{}).(command.RequestID)
	return id
}

type deadlinerKey struct{}

func withDeadliner(ctx context.Context, rc *http.ResponseController) context.Context {
	return context.WithValue(ctx, deadlinerKey{}, rc)
}

// send runs one write of a stream under a deadline, so that a reader that stopped reading cannot hold it for ever.
func send(ctx context.Context, write func() error) error {
	rc, ok := ctx.Value(deadlinerKey{}).(*http.ResponseController)
	if ok {
		if err := rc.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
	}
	return write()
}
