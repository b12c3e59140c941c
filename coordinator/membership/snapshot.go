package membership

import (
	"context"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/coordinator/request"
	"github.com/farrier-project/farrier/pkg/fault"
)

// snapshotChunk is the size of one message of a snapshot, in bytes.
const snapshotChunk = 1 << 20

// SaveSnapshot implements ClusterService: the state in the snapshot holds all that was committed before the call.
func (s *Service) SaveSnapshot(ctx context.Context, _ *farrierv1.SaveSnapshotRequest, stream *connect.ServerStream[farrierv1.SaveSnapshotResponse]) error {
	w := &chunks{send: func(p []byte) error {
		return request.Send(ctx, func() error { return stream.Send(&farrierv1.SaveSnapshotResponse{Chunk: p}) })
	}}
	_, err := s.cfg.Desk.Read(ctx, false) // a leader of before must not pass its old state for the newest
	if err == nil {
		err = s.cfg.Cluster.SaveSnapshot(ctx, w)
	}
	if err == nil {
		err = w.flush()
	}
	return fault.Wrap("save snapshot", err)
}

// chunks is a Writer that sends messages of bounded size.
type chunks struct {
	send func([]byte) error
	buf  []byte
}

func (c *chunks) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		room := min(snapshotChunk-len(c.buf), len(p))
		c.buf, p = append(c.buf, p[:room]...), p[room:]
		if len(c.buf) == snapshotChunk {
			if err := c.flush(); err != nil {
				return n - len(p), err
			}
		}
	}
	return n, nil
}

func (c *chunks) flush() error {
	if len(c.buf) == 0 {
		return nil
	}
	err := c.send(c.buf)
	c.buf = c.buf[:0]
	return err
}

// RestoreSnapshot implements ClusterService: the state becomes the snapshot's, under a new generation, so that no
// token or session of before holds.
func (s *Service) RestoreSnapshot(ctx context.Context, stream *connect.ClientStream[farrierv1.RestoreSnapshotRequest]) (*farrierv1.RestoreSnapshotResponse, error) {
	err := s.cfg.Cluster.RestoreSnapshot(ctx, &received{stream: stream})
	if err != nil {
		return nil, fault.Wrap("restore snapshot", err)
	}
	v := s.cfg.Desk.View()
	s.cfg.Log.Warn("state was restored from a snapshot", "actor", access.Of(ctx).Actor(), "generation", v.Cluster().Generation)
	return &farrierv1.RestoreSnapshotResponse{Generation: uint64(v.Cluster().Generation), Nodes: uint64(max(v.NodeCount(), 0))}, nil
}

// received reads the chunks of a client's stream.
type received struct {
	stream *connect.ClientStream[farrierv1.RestoreSnapshotRequest]
	rest   []byte
}

func (r *received) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if !r.stream.Receive() {
			if err := r.stream.Err(); err != nil && !errors.Is(err, io.EOF) {
				return 0, fmt.Errorf("the upload was cut: %w", err)
			}
			return 0, io.EOF
		}
		r.rest = r.stream.Msg().GetChunk()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
