package gate

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"time"

	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/leader"
	"github.com/farrier-project/farrier/pkg/fault"
)

// maxAnswer bounds the answer to a unary request that is sent on, in bytes. Lists are paged and far smaller.
const maxAnswer = 64 << 20

// forward sends the request on and its answer back.
func (g *gate) forward(w http.ResponseWriter, r *http.Request, m access.Method, repeat bool, refuse func(http.ResponseWriter, *http.Request, error)) {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "https", "leader" // each attempt sets the address
			p.Out.Host = ""
			access.Of(r.Context()).Write(p.Out.Header)
			p.Out.GetBody = r.GetBody
		},
		Transport:     attempts{leader: g.Leader, transport: g.Transport, repeat: repeat, streams: m.Streams},
		FlushInterval: -1,
		ErrorHandler:  refuse,
		ErrorLog:      slog.NewLogLogger(g.Log.Handler(), slog.LevelDebug),
	}
	proxy.ServeHTTP(w, r)
}

// attempts is a round trip to whoever leads. A request that surely was not executed is tried again until the
// wait is over; one that may have been only if a repeat is harmless.
type attempts struct {
	leader    *leader.Finder
	transport http.RoundTripper
	repeat    bool // a read, or a write with a request id
	streams   bool
}

// RoundTrip implements http.RoundTripper.
func (a attempts) RoundTrip(req *http.Request) (*http.Response, error) {
	until := time.Now().Add(a.leader.Wait())
	for {
		m, err := a.leader.Find(req.Context(), until)
		if err != nil { // leader.ErrHere too: this member became the leader meanwhile
			return nil, err
		}
		res, err := a.once(req, m)
		retry := err == nil && again(res.Header, a.repeat)
		if err == nil && !retry {
			return res, nil
		}
		if err != nil && req.Context().Err() != nil {
			return nil, req.Context().Err()
		}
		if err != nil && !notSent(err) && !a.repeat {
			return nil, fault.New(fault.UnknownOutcome, "send request to leader "+m.ID, "%w", err)
		}
		if a.streams || time.Now().After(until) {
			if retry {
				return res, nil
			}
			return nil, fault.New(fault.Unavailable, "send request to leader "+m.ID, "%w", err).
				WithHelp("the leader does not answer: `farrier coordinator members` shows who is there")
		}
		if retry {
			_ = res.Body.Close()
		}
		if !leader.Pause(req.Context()) {
			return nil, req.Context().Err()
		}
	}
}

// once is one attempt. It ends early when another leader is known.
func (a attempts) once(req *http.Request, m command.Member) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	stop := context.AfterFunc(a.leader.Era(), cancel)
	out := req.Clone(ctx)
	out.URL.Host = m.APIAddress
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			cancel()
			return nil, err
		}
		out.Body = body
	}
	res, err := a.transport.RoundTrip(out)
	if err != nil {
		stop()
		cancel()
		return nil, err
	}
	if a.streams {
		res.Body = &endingBody{ReadCloser: res.Body, end: func() { stop(); cancel() }}
		return res, nil
	}
	// The end of the leader's term may cut the answer short: it counts when it is whole.
	defer cancel()
	defer stop()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err = errors.Join(err, res.Body.Close()); err == nil && len(data) > maxAnswer {
		err = fault.New(fault.TooLarge, "read the leader's answer", "it is larger than %d bytes", maxAnswer)
	}
	if err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(data))
	return res, nil
}

// endingBody ends its attempt when it is closed.
type endingBody struct {
	io.ReadCloser
	end func()
}

func (b *endingBody) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}

// notSent tells whether the request surely did not reach the other side.
func notSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
