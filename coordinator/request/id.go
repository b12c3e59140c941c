package request

import (
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Headers of a request. They make a repeat harmless: a client draws the first once and counts the second up.
const (
	HeaderClient   = "Farrier-Client"
	HeaderSequence = "Farrier-Seq"
)

type idKey struct{}

// WithID puts the id that a request's header has, if it has one, in its context; its digest is added by WithDigest.
func WithID(ctx context.Context, h http.Header) (context.Context, error) {
	client, seq := h.Get(HeaderClient), h.Get(HeaderSequence)
	if client == "" && seq == "" {
		return ctx, nil
	}
	n, err := strconv.ParseUint(seq, 10, 64)
	if err != nil || n == 0 {
		return nil, refusal.Invalid(HeaderSequence, "%q is not a number above zero", seq)
	}
	if len(client) < 8 || len(client) > 64 || strings.Trim(client, "0123456789abcdef-") != "" {
		return nil, refusal.Invalid(HeaderClient, "a client session is 8 to 64 hex digits")
	}
	return context.WithValue(ctx, idKey{}, command.RequestID{Client: client, Seq: n}), nil
}

// ID is the id of a request, zero if it has none.
func ID(ctx context.Context) command.RequestID {
	id, _ := ctx.Value(idKey{}).(command.RequestID)
	return id
}

// WithDigest completes the request id: a repeat is known by its id and must have the same digest.
func WithDigest(ctx context.Context, procedure string, m proto.Message) (context.Context, error) {
	id := ID(ctx)
	if id.IsZero() {
		return ctx, nil
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read request", "%w", err)
	}
	h := sha256.New()
	io.WriteString(h, procedure+"\x00") // a hash takes everything
	h.Write(data)
	id.Digest = [16]byte(h.Sum(nil))
	return context.WithValue(ctx, idKey{}, id), nil
}
