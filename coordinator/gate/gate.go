package gate

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/coordinator/leader"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/request"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// Headers of an answer.
const (
	// HeaderKind is on the answer of a member that could not decide, so that the request is tried elsewhere.
	HeaderKind = "Farrier-Kind"
	// HeaderMembers is on the answers to operators: the members' API addresses, separated by commas.
	HeaderMembers = "Farrier-Members"
	// HeaderRevoked is there as well: the keys, as the hex of their SHA-256, of coordinators that are believed no more.
	HeaderRevoked = "Farrier-Revoked"
)

// bodyTimeout bounds the sending of the whole body of a unary request.
const bodyTimeout = 15 * time.Second

// Config is what a gate needs. All fields must be set.
type Config struct {
	Methods   map[string]access.Method
	Desk      *request.Desk
	Leader    *leader.Finder
	Transport http.RoundTripper // to other coordinators' APIs, with this member's certificate
	// Members are the API addresses that operators are told of; none while they are not known.
	Members func() []string
	// Revoked are the keys of coordinators that are believed no more.
	Revoked func() [][32]byte
	Log     *slog.Logger
}

// gate is the HTTP side of the API: size, caller, access, and the way to the leader.
type gate struct {
	Config
	next   http.Handler
	writer *connect.ErrorWriter
}

// New is a gate before the handlers of the methods, which are made with Options.
func New(cfg Config, next http.Handler) http.Handler {
	return &gate{Config: cfg, next: next, writer: connect.NewErrorWriter()}
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m, ok := g.Methods[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	caller, err := access.Read(r)
	if err == nil {
		err = m.Authorise(r.URL.Path, caller)
	}
	if err == nil {
		err = g.admit(r.Context(), caller, m)
	}
	if err == nil {
		err = g.readBody(w, r, m)
	}
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	ctx, err := request.WithID(access.With(r.Context(), caller), r.Header)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	if caller.Role == identity.RoleOperator && !caller.Forwarded() {
		g.tellMembers(w)
	}
	if m.Streams {
		ctx = request.WithDeadlines(ctx, http.NewResponseController(w))
	}
	r = r.WithContext(ctx)
	if m.Where == access.Leader {
		g.lead(w, r, caller, m)
		return
	}
	g.next.ServeHTTP(w, r)
}

// admit judges the caller by the roster. Where the leader serves, lead does that, once it is known to be here; a caller whom
// this member does not know is left to it.
func (g *gate) admit(ctx context.Context, c access.Caller, m access.Method) error {
	if m.Open() && !c.Forwarded() {
		return nil // whoever joins proves it by the token
	}
	if m.Where != access.Leader {
		return g.Desk.Admit(ctx, c)
	}
	if g.Desk.Leading() {
		return nil
	}
	return g.Desk.Refused(c)
}

// tellMembers adds where the API is to be found, and where it is not.
func (g *gate) tellMembers(w http.ResponseWriter) {
	if addresses := g.Members(); len(addresses) > 0 {
		w.Header().Set(HeaderMembers, strings.Join(addresses, ","))
	}
	if keys := g.Revoked(); len(keys) > 0 {
		texts := make([]string, len(keys))
		for i, k := range keys {
			texts[i] = hex.EncodeToString(k[:])
		}
		w.Header().Set(HeaderRevoked, strings.Join(texts, ","))
	}
}

// lead brings a request to the leader: here, or by sending it on. When this member turns out not to lead any more,
// the request goes to the next leader, until the wait for one is over.
func (g *gate) lead(w http.ResponseWriter, r *http.Request, caller access.Caller, m access.Method) {
	ctx := r.Context()
	id := request.ID(ctx)
	repeat := m.ReadOnly || !id.IsZero()
	for until := time.Now().Add(g.Leader.Wait()); ; {
		local, err := g.Leader.Route(ctx, caller.Forwarded())
		switch {
		case err != nil:
			g.refuse(w, r, err)
			return
		case !local:
			g.forward(w, r, m, repeat, func(w http.ResponseWriter, sent *http.Request, err error) {
				switch {
				case !errors.Is(err, leader.ErrHere):
					g.refuse(w, sent, err)
				case r.GetBody == nil:
					g.refuse(w, sent, fault.New(fault.NotLeader, r.URL.Path, "the leader changed while the request was on its way"))
				default: // this member became the leader meanwhile
					g.lead(w, r, caller, m)
				}
			})
			return
		}
		if !m.Open() || caller.Forwarded() {
			if err := g.Desk.Admit(ctx, caller); err != nil {
				g.refuse(w, r, err)
				return
			}
		}
		g.Desk.Seen(ctx)
		if m.Streams || r.GetBody == nil {
			g.next.ServeHTTP(w, r)
			return
		}
		r.Body, _ = r.GetBody() // of bytes: it cannot fail
		c := capture{header: http.Header{}, code: http.StatusOK}
		g.next.ServeHTTP(&c, r)
		if !again(c.header, repeat) || caller.Forwarded() || time.Now().After(until) || !leader.Pause(ctx) {
			c.copyTo(w)
			return
		}
	}
}

// again tells whether an answer only says that its member could not decide: another leader may.
func again(h http.Header, repeat bool) bool {
	switch fault.ParseKind(h.Get(HeaderKind)) {
	case fault.NotLeader, fault.NoQuorum: // nothing was appended
		return true
	case fault.UnknownOutcome:
		return repeat
	default:
		return false
	}
}

// capture holds the answer of a unary call until it is known to be the answer.
type capture struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (c *capture) Header() http.Header { return c.header }

// Write implements http.ResponseWriter.
func (c *capture) Write(p []byte) (int, error) { return c.body.Write(p) }

// WriteHeader implements http.ResponseWriter.
func (c *capture) WriteHeader(code int) { c.code = code }

func (c *capture) copyTo(w http.ResponseWriter) {
	maps.Copy(w.Header(), c.header)
	w.WriteHeader(c.code)
	_, _ = w.Write(c.body.Bytes()) // the caller may have left
}

// readBody reads the body of a unary request, which bounds it and lets it be sent on more than once.
func (g *gate) readBody(w http.ResponseWriter, r *http.Request, m access.Method) error {
	if m.Streams || r.Body == nil || r.Method == http.MethodGet {
		return nil
	}
	limit := m.MaxBody
	if r.ContentLength > limit {
		return tooLarge(limit)
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout)) // not every test's writer has deadlines
	data, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	_ = rc.SetReadDeadline(time.Time{})
	if err != nil {
		return fault.New(fault.Invalid, "read request", "the body ended early: %w", err)
	}
	if int64(len(data)) > limit {
		return tooLarge(limit)
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	return nil
}

func tooLarge(limit int64) error {
	return fault.New(fault.TooLarge, "read request", "the body is larger than %d bytes", limit).
		WithHelp("send less in one call; user and network data may be 64 KiB each, images are named by URL")
}

// refuse answers an error in the protocol of the request.
func (g *gate) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if fault.KindOf(err) == fault.Internal && !refusal.CallerLeft(err) {
		g.Log.Error("request failed", "method", r.URL.Path, "err", err)
	}
	ce := refusal.Connect(err)
	if kind := undecided(err); kind != "" {
		w.Header().Set(HeaderKind, kind)
	}
	if err := g.writer.Write(w, r, ce); err != nil {
		g.Log.Debug("the caller left before its refusal", "method", r.URL.Path, "err", err)
	}
}

// undecided is the kind of an error that another leader may not give, or "".
func undecided(err error) string {
	for _, k := range []fault.Kind{fault.NotLeader, fault.NoQuorum, fault.UnknownOutcome} {
		if fault.Is(err, k) {
			return k.String()
		}
	}
	return ""
}
