package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/test/bench/peer"
	"github.com/farrier-project/farrier/test/bench/report"
)

// fsyncProbe appends 4 KiB and syncs, n times, and returns the median: the floor of everything durable on this disk.
func fsyncProbe(dir string, n int) (time.Duration, error) {
	f, err := os.Create(filepath.Join(dir, "fsync-probe"))
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	buf := make([]byte, 4096)
	took := make([]time.Duration, 0, n)
	for range n {
		start := time.Now()
		if _, err := f.Write(buf); err != nil {
			return 0, errors.Join(err, f.Close())
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return 0, errors.Join(err, f.Close())
		}
		took = append(took, time.Since(start))
	}
	return report.Percentile(took, 50), f.Close()
}

// echo answers CreateNode with the node that was sent.
type echo struct {
	farrierv1connect.UnimplementedNodeServiceHandler
}

func (echo) CreateNode(_ context.Context, req *farrierv1.CreateNodeRequest) (*farrierv1.CreateNodeResponse, error) {
	return &farrierv1.CreateNodeResponse{Node: req.GetNode()}, nil
}

// rpcProbe is the floor of every unary call that carries a node both ways: Connect over TLS and HTTP/2, both sides in
// this process, nothing else done.
func rpcProbe(ctx context.Context, workers, connections int, d time.Duration) (peer.Pairs, error) {
	mux := http.NewServeMux()
	mux.Handle(farrierv1connect.NewNodeServiceHandler(echo{}))
	srv := httptest.NewUnstartedServer(mux)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	calls := make([]farrierv1connect.NodeServiceClient, connections)
	for i := range calls {
		rt := srv.Client().Transport.(*http.Transport).Clone()
		defer rt.CloseIdleConnections()
		calls[i] = farrierv1connect.NewNodeServiceClient(&http.Client{Transport: rt}, srv.URL)
	}
	req := &farrierv1.CreateNodeRequest{Node: record(1)}
	return measurePairs(ctx, nil, workers, d, func(ctx context.Context, w int) error {
		_, err := calls[w%connections].CreateNode(ctx, req)
		return err
	})
}
