package logger_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/farrier-project/farrier/coordinator/replica/logger"
)

func TestLevels(t *testing.T) {
	var out strings.Builder
	to := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	l := logger.New(to).Named("raft").With("peer", "c2")
	l.Trace("trace")
	l.Debug("debug")
	l.Info("entering follower state")
	l.Warn("failed to contact", "for", hclog.Fmt("%d ms", 500))
	l.Error("failed to heartbeat", "term", 3)
	const want = "level=INFO msg=\"failed to contact\" room=raft peer=c2 for=\"500 ms\"\nlevel=WARN msg=\"failed to heartbeat\" room=raft peer=c2 term=3\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	if l.IsDebug() || l.IsInfo() || !l.IsWarn() || !l.IsError() || l.IsTrace() {
		t.Error("a level is not as it is written")
	}
	out.Reset()
	l.StandardLogger(nil).Print("a line")
	if out.String() != "" {
		t.Errorf("the standard logger writes %q", out.String())
	}
}
