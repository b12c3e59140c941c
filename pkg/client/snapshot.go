package client

import (
	"context"
	"errors"
	"io"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
)

// snapshotChunk is how much of a snapshot one message carries, in bytes.
const snapshotChunk = 1 << 20

// SaveSnapshot writes the cluster's state to w. It goes on to other coordinators as long as nothing was written.
func (c *Client) SaveSnapshot(ctx context.Context, w io.Writer) (written int64, err error) {
	err = c.repeat(ctx, false, func() (final bool, err error) {
		stream, err := c.Cluster.SaveSnapshot(ctx, &farrierv1.SaveSnapshotRequest{})
		if err != nil {
			return false, err
		}
		defer stream.Close()
		for stream.Receive() {
			n, err := w.Write(stream.Msg().GetChunk())
			written += int64(n)
			if err != nil {
				return true, fault.Wrap("write snapshot", err)
			}
		}
		return written > 0, stream.Err()
	})
	return written, err
}

// RestoreSnapshot replaces the cluster's state by what r holds. It goes on to other coordinators as long as none has taken
// anything of it.
func (c *Client) RestoreSnapshot(ctx context.Context, r io.Reader) (*farrierv1.RestoreSnapshotResponse, error) {
	chunk := make([]byte, snapshotChunk)
	n, rerr := io.ReadFull(r, chunk) // the first, for each try
	var res *farrierv1.RestoreSnapshotResponse
	err := c.repeat(ctx, false, func() (sent bool, err error) {
		ctx, cancel := context.WithCancel(ctx) // the coordinator is told of an upload that ends early
		defer cancel()
		stream, err := c.Cluster.RestoreSnapshot(ctx)
		if err != nil {
			return false, err
		}
		for n > 0 && stream.Send(&farrierv1.RestoreSnapshotRequest{Chunk: chunk[:n]}) == nil { // CloseAndReceive says why not
			if sent = true; rerr != nil {
				break
			}
			n, rerr = io.ReadFull(r, chunk)
		}
		if rerr != nil && !errors.Is(rerr, io.EOF) && !errors.Is(rerr, io.ErrUnexpectedEOF) {
			return true, fault.Wrap("read snapshot", rerr)
		}
		res, err = stream.CloseAndReceive()
		return sent, err
	})
	return res, err
}
