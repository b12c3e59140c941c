package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/identity"
)

// outage is a coordinator that loses its quorum, and its events, while a node is followed.
type outage struct {
	farrierv1connect.UnimplementedNodeServiceHandler
	farrierv1connect.UnimplementedWatchServiceHandler
	reads, watches atomic.Int32
}

func (o *outage) GetNode(context.Context, *farrierv1.GetNodeRequest) (*farrierv1.GetNodeResponse, error) {
	n := &farrierv1.Node{Id: "1", Name: "m1", ProvisionState: "deploying", Flow: &farrierv1.Flow{Id: 3, State: "open"}}
	switch o.reads.Add(1) {
	case 1:
	case 2, 3:
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("no quorum"))
	default:
		n.ProvisionState, n.Flow.State = "active", "done"
	}
	return &farrierv1.GetNodeResponse{Node: n}, nil
}

func (o *outage) Watch(ctx context.Context, _ *farrierv1.WatchRequest, s *connect.ServerStream[farrierv1.WatchResponse]) error {
	at := &farrierv1.Position{Index: 7}
	if o.watches.Add(1) == 1 {
		return s.Send(&farrierv1.WatchResponse{Item: &farrierv1.WatchResponse_Compacted{Compacted: at}})
	}
	if err := s.Send(&farrierv1.WatchResponse{Item: &farrierv1.WatchResponse_Synced{Synced: at}}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// TestFollowGaveUpWhenTheQuorumWasAway: the work goes on, and so does who follows it; the loss is told once.
func TestFollowGaveUpWhenTheQuorumWasAway(t *testing.T) {
	ca := newCA(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &outage{}
	mux := http.NewServeMux()
	mux.Handle(farrierv1connect.NewNodeServiceHandler(o))
	mux.Handle(farrierv1connect.NewWatchServiceHandler(o))
	srv := &http.Server{Handler: mux, TLSConfig: identity.ServerTLS(newStore(t, ca, identity.RoleCoordinator, time.Hour), tls.RequireAndVerifyClientCert)}
	go func() { _ = srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = srv.Close() })
	c, err := New(Config{Identity: newStore(t, ca, identity.RoleOperator, time.Hour), Addresses: []string{l.Addr().String()}, Patience: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	away, settled := 0, errors.New("settled")
	err = c.Observe(t.Context(), Observation{Nodes: []string{"m1"}, Away: func(error) { away++ }, Show: func(n *farrierv1.Node) error {
		if Settled(n) {
			return settled
		}
		return nil
	}})
	if !errors.Is(err, settled) || away != 1 {
		t.Errorf("%v, told %d times", err, away)
	}
	if n, err := c.Follow(t.Context(), "m1", func(*farrierv1.Node) {}); err != nil || n.GetProvisionState() != "active" {
		t.Errorf("%v, %v", n, err)
	}
}
