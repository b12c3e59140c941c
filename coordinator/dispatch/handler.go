package dispatch

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"net/http"
	"slices"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/dispatch/outbox"
	"github.com/farrier-project/farrier/coordinator/dispatch/proposer"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// Handler serves RackService: the path to mount it at, and the handler. The server must speak HTTP/2 and verify
// client certificates (identity.ServerTLS).
func (d *Dispatch) Handler() (path string, handler http.Handler) {
	path, inner := farrierv1connect.NewRackServiceHandler(rackService{d},
		connect.WithReadMaxBytes(maxRequestBytes), connect.WithCompressMinBytes(math.MaxInt))
	return path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &caller{rc: http.NewResponseController(w)}
		if r.TLS == nil {
			c.err = fault.New(fault.Unauthenticated, "open an agent's stream", "the connection has no TLS")
		} else {
			c.peer, c.err = identity.PeerOf(*r.TLS)
		}
		if c.err == nil {
			c.err = identity.RequireRole(c.peer, identity.RoleAgent)
		}
		inner.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// caller is who opened the request, and the hold we have on its connection.
type caller struct {
	peer identity.Peer
	err  error
	rc   *http.ResponseController
}

type callerKey struct{}

type rackService struct{ d *Dispatch }

// Connect implements farrierv1connect.RackServiceHandler.
func (s rackService) Connect(ctx context.Context, stream *connect.BidiStream[farrierv1.ConnectRequest, farrierv1.ConnectResponse]) error {
	c, _ := ctx.Value(callerKey{}).(*caller)
	if c == nil {
		return refusal.Connect(fault.New(fault.Internal, "open an agent's stream", "the handler was mounted without its wrapper"))
	}
	if c.err != nil {
		return refusal.Connect(c.err)
	}
	if err := s.d.serve(ctx, c, stream); err != nil {
		return refusal.Connect(err)
	}
	return nil
}

// serve is one stream from hello to its end.
func (d *Dispatch) serve(ctx context.Context, c *caller, stream *connect.BidiStream[farrierv1.ConnectRequest, farrierv1.ConnectResponse]) error {
	if !d.enter() {
		return fault.New(fault.Busy, "open an agent's stream", "%d streams are open", d.cfg.MaxStreams)
	}
	defer d.leave()
	if term, leading := d.cfg.Replica.Leading(); !leading {
		return d.redirect(stream)
	} else if l, rest, err := d.hello(ctx, c, stream, term); err != nil {
		if fault.Is(err, fault.NotLeader) {
			return d.redirect(stream)
		}
		return err
	} else {
		return d.run(ctx, c, l, rest, stream)
	}
}

func (d *Dispatch) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.streams >= d.cfg.MaxStreams {
		return false
	}
	d.streams++
	return true
}

func (d *Dispatch) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.streams--
}

// redirect answers with where the leader's rack listener is, if anybody knows, and ends the stream.
func (d *Dispatch) redirect(stream *connect.BidiStream[farrierv1.ConnectRequest, farrierv1.ConnectResponse]) error {
	return stream.Send(&farrierv1.ConnectResponse{Messages: []*farrierv1.CoordinatorMessage{d.redirection()}})
}

func (d *Dispatch) redirection() *farrierv1.CoordinatorMessage {
	address := ""
	if id, _, known := d.cfg.Replica.Leader(); known {
		if m, ok := d.cfg.Replica.View().Member(id); ok {
			address = m.RackAddress
		}
	}
	return &farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Redirect{
		Redirect: &farrierv1.Redirect{LeaderAddress: address}}}
}

// hello reads the first message, opens the session and reports the outcomes that came with it. The link's outbox
// begins with the welcome. rest is what else the first request held.
func (d *Dispatch) hello(ctx context.Context, c *caller, stream *connect.BidiStream[farrierv1.ConnectRequest, farrierv1.ConnectResponse], term uint64) (*link, []*farrierv1.AgentMessage, error) {
	const op = "open an agent's session"
	c.rc.SetReadDeadline(time.Now().Add(helloWithin))
	req, err := stream.Receive()
	if err != nil {
		return nil, nil, fault.New(fault.Invalid, op, "no hello: %w", err)
	}
	c.rc.SetReadDeadline(time.Time{})
	if len(req.GetMessages()) == 0 || req.Messages[0].GetHello() == nil {
		return nil, nil, fault.New(fault.Invalid, op, "the first message is not hello")
	}
	h := req.Messages[0].GetHello()
	if err := checkHello(h, c.peer); err != nil {
		return nil, nil, err
	}
	// Apply decides; who is refused here, again and again, costs no log entry.
	if err := state.Admit(d.cfg.Replica.View().Certificate(c.peer.Key), string(c.peer.Role), c.peer.Name); err != nil {
		return nil, nil, fault.Wrap(op, err)
	}
	ctx, cancel := proposer.Bounded(ctx)
	defer cancel()
	results, err := d.proposer.Propose(ctx, c.peer.Actor(), openSession(h, c.peer.Key))
	if err == nil {
		err = results[0].Err
	}
	if err != nil {
		return nil, nil, fault.Wrap(op, err)
	}
	l := newLink(d, h, results[0].Session, term)
	v := d.cfg.Replica.View()
	settings := v.Settings()
	ttl := settings.SessionTTL
	if se, ok := v.Session(l.session); ok && se.TTL != 0 { // a resumed one keeps what it was opened with
		ttl = se.TTL
	}
	l.out.Put(&farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Welcome{Welcome: &farrierv1.Welcome{
		Session: l.session, Leader: d.cfg.ID, Resumed: results[0].Flags&command.FlagResumed != 0,
		Ttl: durationpb.New(ttl), RenewEvery: durationpb.New(ttl / 4),
		RamdiskSilence: durationpb.New(settings.RamdiskSilence), RamdiskHeartbeat: durationpb.New(settings.RamdiskHeartbeat),
	}}})
	// What the journal still holds goes first, so that no order repeats what is done.
	for outcomes := range slices.Chunk(h.Outcomes, maxBatch) {
		items := make([]item, 0, len(outcomes))
		for _, o := range outcomes {
			items = append(items, l.outcome(o))
		}
		if err := l.submit(ctx, items); err != nil {
			return nil, nil, fault.Wrap("report outcomes from the journal", err)
		}
	}
	return l, req.Messages[1:], nil
}

func checkHello(h *farrierv1.Hello, peer identity.Peer) error {
	const op = "open an agent's session"
	switch {
	case h.Agent != peer.Name:
		return fault.New(fault.Denied, op, "the certificate is of agent %s, hello says %s", peer.Name, h.Agent).
			WithHelp("set the name in the agent's configuration to the one it joined with")
	case h.Group != peer.Group:
		return fault.New(fault.Denied, op, "the certificate is of group %q, hello says %q", peer.Group, h.Group).
			WithHelp("an agent changes its group by joining again with a token for the new one")
	case len(h.JournalId) != 16:
		return fault.New(fault.Invalid, op, "the journal id has %d bytes, not 16", len(h.JournalId))
	case len(h.Drivers) == 0 || len(h.Drivers) > 64:
		return fault.New(fault.Invalid, op, "%d hardware types; from 1 to 64 are wanted", len(h.Drivers))
	}
	return nil
}

// openSession is the command of a hello. Apply asks the roster about the key, so that no state that is behind decides it.
func openSession(h *farrierv1.Hello, key [32]byte) command.OpenSession {
	var id [16]byte
	rand.Read(id[:])
	return command.OpenSession{
		Session: hex.EncodeToString(id[:]), Resume: h.Session, Agent: h.Agent, Group: h.Group,
		Drivers: h.Drivers, Weight: max(h.Weight, 1), Journal: hex.EncodeToString(h.JournalId),
		Incarnation: h.Incarnation, Version: h.Version, Level: h.FeatureLevel,
		RamdiskURL: h.RamdiskUrl, HTTPURL: h.HttpUrl, RamdiskPin: h.RamdiskPin, Key: key,
	}
}

// run carries the stream until either side ends it. Its goroutines are over when it returns.
func (d *Dispatch) run(ctx context.Context, c *caller, l *link, rest []*farrierv1.AgentMessage, stream *connect.BidiStream[farrierv1.ConnectRequest, farrierv1.ConnectResponse]) error {
	d.attach(l)
	defer d.detach(l)
	d.cfg.Log.Info("an agent's stream is open", "agent", l.agent, "session", l.session)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { // ends Receive, which knows nothing of ctx
		<-ctx.Done()
		c.rc.SetReadDeadline(time.Unix(1, 0))
		return nil
	})
	g.Go(func() error { return l.write(ctx, c, stream) })
	g.Go(func() error { return l.submitAll(ctx) })
	g.Go(func() error {
		if err := l.receive(ctx, rest); err != nil {
			return err
		}
		for {
			req, err := stream.Receive()
			if err != nil {
				return errors.Join(outbox.ErrEnded, err)
			}
			if err := l.receive(ctx, req.GetMessages()); err != nil {
				return err
			}
		}
	})
	err := g.Wait()
	d.cfg.Log.Info("an agent's stream is over", "agent", l.agent, "session", l.session, "err", err)
	if errors.Is(err, outbox.ErrEnded) || errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// attach makes l the agent's stream: renewals of an older one no longer count.
func (d *Dispatch) attach(l *link) {
	d.mu.Lock()
	d.links[l.agent] = l
	d.mu.Unlock()
	d.planner.note(note{kind: noteAttach, link: l})
}

func (d *Dispatch) detach(l *link) {
	d.mu.Lock()
	if d.links[l.agent] == l {
		delete(d.links, l.agent)
	}
	d.mu.Unlock()
	d.waiters.Leave(l)
	d.planner.note(note{kind: noteDetach, link: l})
}

// groupInfo has the agents of a group with a session, by name, and whom they must not take for a coordinator.
func groupInfo(v *state.View, group string) *farrierv1.GroupInfo {
	info := &farrierv1.GroupInfo{}
	for _, key := range v.RevokedCoordinators() {
		info.RevokedCoordinators = append(info.RevokedCoordinators, key[:])
	}
	v.Agents(func(a *state.Agent) bool {
		if a.Group == group && a.Session != "" {
			info.Agents = append(info.Agents, &farrierv1.GroupAgent{
				Name: a.Name, RamdiskUrl: a.RamdiskURL, HttpUrl: a.HTTPURL, RamdiskPin: a.RamdiskPin})
		}
		return true
	})
	return info
}
