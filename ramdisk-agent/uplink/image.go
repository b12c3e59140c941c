package uplink

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/farrier-project/farrier/pkg/fault"
)

// bodyIdle is how long an image may send nothing before another agent is asked. One that heartbeats have left already is
// not waited for: each idleLook that is seen to.
const (
	bodyIdle = 15 * time.Second
	idleLook = time.Second
)

// Open implements steps.Images: a range request to the current agent, in clear if it serves images so (their bytes
// are checked against the manifest, which came by TLS).
func (u *Uplink) Open(ctx context.Context, path string, offset, length int64) (io.ReadCloser, error) {
	if !strings.HasPrefix(path, "/") || strings.Contains(path, "..") || length == 0 {
		return nil, fault.New(fault.Invalid, "open image", "path %q, length %d", path, length)
	}
	a := u.at()
	u.mu.Lock()
	base, hc := a.httpURL, a.plain
	u.mu.Unlock()
	if !strings.HasPrefix(base, "http://") {
		base, hc = a.ramdiskURL, a.tls
	}
	parent := ctx
	ctx, cancel := context.WithCancel(parent)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		cancel()
		return nil, fault.New(fault.Invalid, "open image", "%w", err)
	}
	if length < 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	} else {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	}
	resp, err := hc.Do(req)
	if err == nil {
		err = checkRange(resp, offset)
	}
	if err != nil {
		cancel()
		if parent.Err() == nil {
			u.turn(a, err)
		}
		return nil, fault.New(fault.Unavailable, "open image", "%w", err)
	}
	b := &body{u: u, a: a, rc: resp.Body, cancel: cancel}
	b.idle = time.AfterFunc(idleLook, b.look)
	b.idle.Stop()
	return b, nil
}

// checkRange wants exactly the range that was asked for.
func checkRange(resp *http.Response, offset int64) error {
	ok := resp.StatusCode == http.StatusPartialContent &&
		strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset))
	if ok || resp.StatusCode == http.StatusOK && offset == 0 {
		return nil
	}
	resp.Body.Close()
	return fmt.Errorf("%s answers %s", resp.Request.URL.Redacted(), resp.Status)
}

// Distrust implements steps.Images.
func (u *Uplink) Distrust(reason error) { u.turn(u.at(), reason) }

// body turns to the next agent when it fails.
type body struct {
	u      *Uplink
	a      *agent
	rc     io.ReadCloser
	idle   *time.Timer
	cancel context.CancelFunc
	once   sync.Once

	mu    sync.Mutex
	since time.Time // when the read began that waits for the agent; zero between reads: a slow disk is not its fault
}

// look ends a read that has waited long enough.
func (b *body) look() {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.since.IsZero():
	case b.u.at() != b.a || time.Since(b.since) >= bodyIdle:
		b.cancel()
	default:
		b.idle.Reset(idleLook)
	}
}

func (b *body) waiting(since time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.since = since; since.IsZero() {
		b.idle.Stop()
	} else {
		b.idle.Reset(idleLook)
	}
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	b.waiting(time.Now())
	n, err := b.rc.Read(p)
	b.waiting(time.Time{})
	if err != nil && err != io.EOF {
		b.once.Do(func() { b.u.turn(b.a, err) })
		err = fault.New(fault.Unavailable, "read image", "%w", err)
	}
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error {
	b.idle.Stop()
	b.cancel()
	b.once.Do(func() {})
	return b.rc.Close()
}
