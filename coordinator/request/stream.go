package request

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// sendTimeout bounds one message of a stream to a slow reader.
const sendTimeout = 30 * time.Second

type deadlinerKey struct{}

// WithDeadlines has Send set deadlines on the connection of a stream.
func WithDeadlines(ctx context.Context, rc *http.ResponseController) context.Context {
	return context.WithValue(ctx, deadlinerKey{}, rc)
}

// Send runs one write of a stream under a deadline, so that a reader that stopped reading cannot hold it for ever.
func Send(ctx context.Context, write func() error) error {
	rc, ok := ctx.Value(deadlinerKey{}).(*http.ResponseController)
	if ok {
		if err := rc.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
	}
	return write()
}
