package redfish

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/farrier-project/farrier/pkg/fault"
)

const (
	maxReply      = 8 << 20 // bytes of one reply; inventories of large machines are under 1 MiB
	maxRedirects  = 5
	busyTries     = 3                // answers 503 before giving up
	maxRetryAfter = 10 * time.Second // a longer Retry-After is answered with Busy
)

// wire carries every request to one BMC: it adds the credentials, keeps them inside the origin, bounds the reply
// and waits out a 503. gofish sits on top and knows nothing of authentication.
type wire struct {
	base   http.RoundTripper
	origin string // scheme://host

	mu       sync.Mutex // guards the fields below
	token    string     // X-Auth-Token of the open session
	session  string     // its URI
	basic    bool
	user     string
	password string
}

func (w *wire) credentials() (token string, basic bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.token, w.basic
}

func (w *wire) setSession(token, uri string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.token, w.session = token, uri
}

func (w *wire) sessionURI() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.session
}

func (w *wire) setBasic(user, password string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.basic, w.user, w.password, w.token, w.session = true, user, password, "", ""
}

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	if origin := req.URL.Scheme + "://" + req.URL.Host; origin != w.origin || req.URL.User != nil {
		return nil, fault.New(fault.Denied, "call bmc", "it points to another origin, %s", origin).
			WithHelp("the BMC's links or redirects leave %s: check its firmware, or set redfish_address to where it redirects", w.origin)
	}
	for try := 1; ; try++ {
		resp, err := w.once(req)
		if err != nil || resp.StatusCode != http.StatusServiceUnavailable || try == busyTries {
			return resp, err
		}
		wait, ok := retryAfter(resp.Header.Get("Retry-After"))
		if !ok || (req.Body != nil && req.GetBody == nil) {
			return resp, nil
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err := sleep(req.Context(), wait); err != nil {
			return nil, err
		}
	}
}

func (w *wire) once(req *http.Request) (*http.Response, error) {
	out := req.Clone(req.Context())
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		out.Body = body
	}
	w.mu.Lock()
	switch {
	case w.token != "":
		out.Header.Set("X-Auth-Token", w.token)
	case w.basic:
		out.SetBasicAuth(w.user, w.password)
	}
	w.mu.Unlock()
	resp, err := w.base.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	resp.Body = &capped{ReadCloser: resp.Body, left: maxReply}
	return resp, nil
}

// retryAfter reads the header: seconds or a date; without it a second. ok is false when that is too long to wait.
func retryAfter(text string) (time.Duration, bool) {
	wait := time.Second
	if n, err := strconv.Atoi(text); err == nil && n >= 0 {
		wait = time.Duration(min(n, 3600)) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		wait = max(time.Until(at), 0)
	}
	return wait, wait <= maxRetryAfter
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// checkRedirect follows a redirect within the origin that keeps the method.
func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case len(via) > maxRedirects:
		return errors.New("more than 5 redirects")
	case req.URL.Scheme != first.URL.Scheme || req.URL.Host != first.URL.Host:
		return fault.New(fault.Denied, "call bmc", "it redirects to another origin, %s://%s", req.URL.Scheme, req.URL.Host).
			WithHelp("set redfish_address to where it redirects, if that is right")
	case req.Method != first.Method:
		return errors.New("a redirect that turns " + first.Method + " into " + req.Method)
	}
	return nil
}

// capped fails a read that goes past the bound instead of cutting the reply short.
type capped struct {
	io.ReadCloser
	left int64
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left <= 0 {
		var one [1]byte
		if n, err := c.ReadCloser.Read(one[:]); n == 0 {
			return 0, err
		}
		return 0, fault.New(fault.TooLarge, "read bmc reply", "it is over %d bytes", maxReply)
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.ReadCloser.Read(p)
	c.left -= int64(n)
	return n, err
}
