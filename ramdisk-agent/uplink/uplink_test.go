package uplink

import (
	"context"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

func newUplink(t *testing.T, agents ...string) *Uplink {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	u, err := New(Config{Agents: agents, Pins: [][32]byte{{1}}, Key: key, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestLearnsTheGroup(t *testing.T) {
	u := newUplink(t, "https://a")
	pin := [32]byte{2}
	u.learn([]*farrierv1.GroupAgent{
		{Name: "a", RamdiskUrl: "https://a/", HttpUrl: "http://a/", RamdiskPin: hex.EncodeToString(make([]byte, 32))},
		{Name: "b", RamdiskUrl: "https://b", RamdiskPin: hex.EncodeToString(pin[:])},
		{Name: "clear", RamdiskUrl: "http://c"}, {},
	})
	if len(u.agents) != 2 || u.agents[0].httpURL != "http://a" || u.agents[0].pins[0] != ([32]byte{}) || u.agents[1].pins[0] != pin {
		t.Errorf("agents %+v", u.agents)
	}
	old := u.agents[1]
	u.learn([]*farrierv1.GroupAgent{{Name: "b", RamdiskUrl: "https://b", RamdiskPin: hex.EncodeToString(pin[:]), HttpUrl: "http://b"}})
	if u.agents[1] != old || old.httpURL != "http://b" {
		t.Error("an agent that did not change was made anew")
	}
	for i := range 2 * maxAgents {
		u.learn([]*farrierv1.GroupAgent{{RamdiskUrl: "https://x" + strings.Repeat("x", i)}})
	}
	if len(u.agents) != maxAgents {
		t.Errorf("%d agents", len(u.agents))
	}
}

func TestTurnsOnce(t *testing.T) {
	u := newUplink(t, "https://a", "https://b", "https://c")
	first := u.at()
	for range 3 { // three calls fail with the same agent
		u.turn(first, io.EOF)
	}
	if got := u.at().ramdiskURL; got != "https://b" {
		t.Errorf("at %s", got)
	}
}

// TestASilentAgentHeldTheWork: its machine had no power, and each connection to it was waited for as if it were busy.
func TestASilentAgentHeldTheWork(t *testing.T) {
	u := newUplink(t, "https://a:1", "https://b:1")
	for turns := range 6 {
		want := hastyDial
		if turns >= 4 {
			want = dialTimeout
		}
		if got := u.patience(); got != want {
			t.Errorf("after %d turns a connection may take %v, not %v", turns, got, want)
		}
		u.turn(u.at(), io.EOF)
	}
	u.answered()
	if got := u.patience(); got != hastyDial {
		t.Errorf("after an answer a connection may take %v", got)
	}
	if got := newUplink(t, "https://a:1").patience(); got != dialTimeout {
		t.Errorf("the only agent is waited for %v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	from := u.at()
	b := &body{u: u, a: from, idle: time.AfterFunc(time.Hour, func() {}), cancel: cancel, since: time.Now()}
	if b.look(); ctx.Err() != nil {
		t.Error("an agent that is in use was left at once")
	}
	u.turn(from, io.EOF)
	if b.look(); ctx.Err() == nil {
		t.Error("an agent that heartbeats have left is waited for")
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	b = &body{u: u, a: from, idle: b.idle, cancel: cancel}
	if b.look(); ctx.Err() != nil {
		t.Error("a read that does not wait was ended")
	}
	b.idle.Stop()
}

func TestImageRanges(t *testing.T) {
	const content = "0123456789"
	behave := func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { behave(w, r) }))
	defer s.Close()
	u := newUplink(t, "https://a", "https://b")
	u.agents[0].httpURL, u.agents[1].httpURL = s.URL, s.URL
	read := func(off, n int64) (string, error) {
		rc, err := u.Open(context.Background(), "/images/x", off, n)
		if err != nil {
			return "", err
		}
		defer rc.Close()
		b, err := io.ReadAll(rc)
		return string(b), err
	}
	if got, err := read(3, 4); got != "3456" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := read(8, -1); got != "89" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for name, bad := range map[string]http.HandlerFunc{
		"no range":  func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, content) },
		"not found": http.NotFound,
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://elsewhere/", http.StatusFound)
		},
		"other range": func(w http.ResponseWriter, r *http.Request) {
			r.Header.Set("Range", "bytes=1-2")
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
		},
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 3-6/10")
			w.Header().Set("Content-Length", "4")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, "3")
		},
	} {
		behave = bad
		before := u.at()
		if _, err := read(3, 4); !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v", name, err)
		}
		if u.at() == before {
			t.Errorf("%s: it stays with the agent", name)
		}
	}
	if _, err := u.Open(context.Background(), "/images/../secret", 0, 1); !fault.Is(err, fault.Invalid) {
		t.Errorf("upwards: %v", err)
	}
}
