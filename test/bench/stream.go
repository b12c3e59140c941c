package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/test/lab/site"
)

// maxSend is how many messages one ConnectRequest carries, as the agent's own stream does.
const maxSend = 512

// stream is this process as a rack agent: one stream to the leader, many messages in each request.
type stream struct {
	conn    *connect.BidiStreamForClientSimple[farrierv1.ConnectRequest, farrierv1.ConnectResponse]
	http    *http.Transport
	ctx     context.Context // ends with the stream, for the reason that it has
	cancel  context.CancelCauseFunc
	done    sync.WaitGroup
	more    chan struct{}
	replies [lockNodes]chan *farrierv1.LockReply // of each worker; a call's number is that of its worker, modulo their number

	mu  sync.Mutex // guards out
	out []*farrierv1.AgentMessage
}

// joinAgent gets a certificate as an agent, and the addresses of the rack listeners.
func joinAgent(ctx context.Context, s *site.Site, dir, name string) (*identity.Store, []string, error) {
	res, err := s.Client.Cluster.CreateJoinToken(ctx, &farrierv1.CreateJoinTokenRequest{Role: "agent", Name: name, Group: group})
	if err != nil {
		return nil, nil, err
	}
	token, err := identity.ParseJoinToken(res.GetToken())
	if err != nil {
		return nil, nil, err
	}
	store, err := identity.NewStore(filepath.Join(dir, name))
	if err != nil {
		return nil, nil, err
	}
	csr, err := store.CSR()
	if err != nil {
		return nil, nil, err
	}
	ramdiskCSR, err := store.RamdiskCSR()
	if err != nil {
		return nil, nil, err
	}
	rt := identity.Transport(identity.JoinTLS(token.CAHash))
	defer rt.CloseIdleConnections()
	joined, err := farrierv1connect.NewJoinServiceClient(&http.Client{Transport: rt}, "https://"+token.Addresses[0]).Join(ctx,
		&farrierv1.JoinRequest{Token: res.GetToken(), CsrDer: csr, IntermediateCsrDer: ramdiskCSR, Version: "bench", FeatureLevel: 1})
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(store.Put(joined.GetChainDer(), joined.GetCaDer()), store.PutRamdiskCA(joined.GetIntermediateChainDer())); err != nil {
		return nil, nil, err
	}
	return store, joined.GetRackAddresses(), nil
}

// openStream joins as an agent and opens the stream at whichever coordinator leads.
func (b *bench) openStream(ctx context.Context, s *site.Site, name string) (*stream, error) {
	dir, err := os.MkdirTemp(b.dir, "agent-")
	if err != nil {
		return nil, err
	}
	store, addresses, err := joinAgent(ctx, s, dir, name)
	if err != nil {
		return nil, fmt.Errorf("join as an agent: %w", err)
	}
	for _, p := range s.Coordinators {
		var at struct{ Rack string }
		if p.Addresses(&at) == nil {
			addresses = append(addresses, at.Rack)
		}
	}
	var last error
	for _, address := range addresses {
		st, err := dialStream(ctx, store, address, name)
		if err == nil {
			return st, nil
		}
		last = err
	}
	return nil, fmt.Errorf("open an agent's stream: %w", last)
}

func dialStream(ctx context.Context, store *identity.Store, address, name string) (*stream, error) {
	var journal [16]byte
	_, _ = rand.Read(journal[:])
	ctx, cancel := context.WithCancelCause(ctx)
	st := &stream{http: &http.Transport{TLSClientConfig: identity.ClientTLS(store, identity.RoleCoordinator), ForceAttemptHTTP2: true},
		ctx: ctx, cancel: cancel, more: make(chan struct{}, 1)}
	var err error
	st.conn, err = farrierv1connect.NewRackServiceClient(&http.Client{Transport: st.http}, "https://"+address).Connect(ctx)
	hello := &farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_Hello{Hello: &farrierv1.Hello{
		Agent: name, Group: group, JournalId: journal[:], Incarnation: 1, Drivers: []string{"fake-hardware"}, Weight: 1,
		Version: "bench", FeatureLevel: 1, FreeWorkers: 0}}}
	if err == nil {
		err = st.conn.Send(&farrierv1.ConnectRequest{Messages: []*farrierv1.AgentMessage{hello}})
	}
	var first *farrierv1.ConnectResponse
	if err == nil {
		first, err = st.conn.Receive()
	}
	if err == nil && (len(first.GetMessages()) == 0 || first.GetMessages()[0].GetWelcome() == nil) {
		err = fmt.Errorf("%s does not lead", address)
	}
	if err != nil {
		cancel(err)
		st.http.CloseIdleConnections()
		return nil, err
	}
	st.done.Go(func() { cancel(st.read()) })
	st.done.Go(func() { cancel(st.write(ctx)) })
	return st, nil
}

func (st *stream) close() {
	st.cancel(context.Canceled)
	_ = st.conn.CloseRequest()
	_ = st.conn.CloseResponse()
	st.done.Wait()
	st.http.CloseIdleConnections()
}

// why adds to an error that the stream had ended before it, and the reason.
func (st *stream) why(err error) error {
	if cause := context.Cause(st.ctx); err != nil && cause != nil {
		return fmt.Errorf("%w (%w)", err, cause)
	}
	return err
}

// put queues messages; they go out with everything else that waits.
func (st *stream) put(messages ...*farrierv1.AgentMessage) {
	st.mu.Lock()
	st.out = append(st.out, messages...)
	st.mu.Unlock()
	select {
	case st.more <- struct{}{}:
	default:
	}
}

func (st *stream) take() []*farrierv1.AgentMessage {
	st.mu.Lock()
	defer st.mu.Unlock()
	n := min(len(st.out), maxSend)
	batch := st.out[:n:n]
	if st.out = st.out[n:]; len(st.out) == 0 {
		st.out = nil
	}
	return batch
}

// write sends what is queued, and a renewal of the session twice a second.
func (st *stream) write(ctx context.Context) error {
	renew := time.NewTicker(500 * time.Millisecond)
	defer renew.Stop()
	for seq := uint64(1); ; {
		batch := st.take()
		if len(batch) == 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-st.more:
				continue
			case <-renew.C:
				batch = []*farrierv1.AgentMessage{{Body: &farrierv1.AgentMessage_Renew{Renew: &farrierv1.Renew{Seq: seq}}}}
				seq++
			}
		} else {
			select {
			case <-renew.C:
				batch = append(batch, &farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_Renew{Renew: &farrierv1.Renew{Seq: seq}}})
				seq++
			default:
			}
		}
		if err := st.conn.Send(&farrierv1.ConnectRequest{Messages: batch}); err != nil {
			return fmt.Errorf("send on the agent's stream: %w", err)
		}
	}
}

// read gives lock replies to their workers. Assignments are not for this agent's work: it has none.
func (st *stream) read() error {
	for {
		res, err := st.conn.Receive()
		if err != nil {
			return fmt.Errorf("the agent's stream ended: %w", err)
		}
		for _, m := range res.GetMessages() {
			switch b := m.GetBody().(type) {
			case *farrierv1.CoordinatorMessage_LockReply:
				st.replies[b.LockReply.GetCall()%lockNodes] <- b.LockReply
			case *farrierv1.CoordinatorMessage_SessionEnded:
				return fmt.Errorf("the session ended: %s", b.SessionEnded.GetReason())
			}
		}
	}
}

// holder is one worker that takes and releases the lock of its own node.
type holder struct {
	st    *stream
	node  string
	last  uint64                    // call
	reply chan *farrierv1.LockReply // room for one: a worker has one call at a time
}

// holder is the worker of a number below lockNodes. One number has one holder at a time.
func (st *stream) holder(worker int, node string) *holder {
	if st.replies[worker] == nil {
		st.replies[worker] = make(chan *farrierv1.LockReply, 1)
	}
	// Calls are numbered anew from the time: a number is never used twice in a session.
	return &holder{st: st, node: node, last: uint64(time.Now().UnixMicro())*lockNodes + uint64(worker), reply: st.replies[worker]}
}

func (h *holder) next() uint64 {
	h.last += lockNodes
	return h.last
}

func (h *holder) call(ctx context.Context, m *farrierv1.AgentMessage) (*farrierv1.LockReply, error) {
	h.st.put(m)
	select {
	case r := <-h.reply:
		if r.GetError() != nil {
			return nil, errors.New(r.GetError().GetMessage())
		}
		return r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pair acquires and releases once.
func (h *holder) pair(ctx context.Context) error {
	call := h.next()
	r, err := h.call(ctx, &farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_LockRequest{
		LockRequest: &farrierv1.LockRequest{Call: call, Node: h.node, Task: "bench", Purpose: "bench"}}})
	if err != nil {
		return err
	}
	_, err = h.call(ctx, &farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_LockRelease{
		LockRelease: &farrierv1.LockRelease{Call: h.next(), Node: h.node, Token: r.GetToken()}}})
	return err
}
