package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
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
	return percentile(took, 50), f.Close()
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
func rpcProbe(ctx context.Context, workers, connections int, d time.Duration) (pairResult, error) {
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

// cpu is the user and system time that processes have used so far.
func cpu(pids ...int) (time.Duration, error) {
	var total time.Duration
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
		for _, f := range fields[11:13] { // utime, stime in clock ticks of 10 ms (proc(5))
			ticks, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, err
			}
			total += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return total, nil
}

// rss is a process's resident memory in bytes.
func rss(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
}
