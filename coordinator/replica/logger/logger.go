package logger

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

type hclogger struct {
	to      *slog.Logger
	name    string
	implied []any
}

// New writes to the logger, with the room raft.
func New(to *slog.Logger) hclog.Logger { return &hclogger{to: to.With("room", "raft")} }

func (h *hclogger) Log(level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Warn:
		to = slog.LevelInfo
	case hclog.Error:
		to = slog.LevelWarn
	}
	ctx := context.Background()
	if !h.to.Enabled(ctx, to) {
		return
	}
	all := append(append(make([]any, 0, len(h.implied)+len(args)), h.implied...), args...)
	for i, a := range all {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			if format, ok := f[0].(string); ok {
				all[i] = fmt.Sprintf(format, f[1:]...)
			}
		}
	}
	h.to.Log(ctx, to, msg, all...)
}

func (h *hclogger) Trace(msg string, args ...any) { h.Log(hclog.Trace, msg, args...) }
func (h *hclogger) Debug(msg string, args ...any) { h.Log(hclog.Debug, msg, args...) }
func (h *hclogger) Info(msg string, args ...any)  { h.Log(hclog.Info, msg, args...) }
func (h *hclogger) Warn(msg string, args ...any)  { h.Log(hclog.Warn, msg, args...) }
func (h *hclogger) Error(msg string, args ...any) { h.Log(hclog.Error, msg, args...) }

func (h *hclogger) enabled(l slog.Level) bool { return h.to.Enabled(context.Background(), l) }

func (h *hclogger) IsTrace() bool                    { return false }
func (h *hclogger) IsDebug() bool                    { return h.enabled(slog.LevelDebug) }
func (h *hclogger) IsInfo() bool                     { return h.enabled(slog.LevelDebug) }
func (h *hclogger) IsWarn() bool                     { return h.enabled(slog.LevelInfo) }
func (h *hclogger) IsError() bool                    { return h.enabled(slog.LevelWarn) }
func (h *hclogger) ImpliedArgs() []any               { return h.implied }
func (h *hclogger) Name() string                     { return h.name }
func (h *hclogger) SetLevel(hclog.Level)             {}
func (h *hclogger) GetLevel() hclog.Level            { return hclog.Debug }
func (h *hclogger) ResetNamed(n string) hclog.Logger { return h.Named(n) }

func (h *hclogger) With(args ...any) hclog.Logger {
	c := *h
	c.implied = append(append([]any(nil), h.implied...), args...)
	return &c
}

func (h *hclogger) Named(name string) hclog.Logger {
	c := *h
	c.name = name
	return &c
}

func (h *hclogger) StandardLogger(o *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(h.StandardWriter(o), "", 0)
}

func (h *hclogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return lineWriter{h} }

type lineWriter struct{ to *hclogger }

func (w lineWriter) Write(p []byte) (int, error) {
	w.to.Info(string(p))
	return len(p), nil
}
