package gate

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/request"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Options are what every handler behind a gate is made with.
func Options(log *slog.Logger) []connect.HandlerOption {
	return []connect.HandlerOption{
		connect.WithInterceptors(&edge{log: log}),
		connect.WithCompressMinBytes(math.MaxInt), // gzip takes longer than the network of a site: 4 of 5 s of an archive
		connect.WithReadMaxBytes(access.MaxBody),
		connect.WithRecover(func(_ context.Context, spec connect.Spec, _ http.Header, p any) error { // an error of one call
			log.Error("a handler panicked", "method", spec.Procedure, "err", p)
			return fault.New(fault.Internal, spec.Procedure, "panic: %v", p)
		}),
	}
}

// edge is the interceptor around every handler: it gives a request with an id its digest, and every error its
// wire form.
type edge struct{ log *slog.Logger }

// WrapUnary implements connect.Interceptor.
func (e *edge) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		ctx, err := e.digest(ctx, req)
		if err != nil {
			return nil, e.out(req.Spec(), err)
		}
		res, err := next(ctx, req)
		if err != nil {
			return nil, e.out(req.Spec(), err)
		}
		return res, nil
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (*edge) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor.
func (e *edge) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := next(ctx, conn); err != nil {
			return e.out(conn.Spec(), err)
		}
		return nil
	}
}

func (e *edge) out(spec connect.Spec, err error) error {
	ce := new(connect.Error)
	if !errors.As(err, &ce) && !refusal.CallerLeft(err) && fault.KindOf(err) == fault.Internal {
		e.log.Error("request failed", "method", spec.Procedure, "err", err)
	}
	out := refusal.Connect(err)
	if kind := undecided(err); kind != "" {
		out.Meta().Set(HeaderKind, kind)
	}
	return out
}

// digest completes the id of a request.
func (e *edge) digest(ctx context.Context, req connect.AnyRequest) (context.Context, error) {
	m, ok := req.Any().(proto.Message)
	if !ok {
		return ctx, nil
	}
	return request.WithDigest(ctx, req.Spec().Procedure, m)
}
