package redfish

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/pkg/fault"
)

// stubborn is a BMC with one system and a peculiarity. Its own answers are as DSP0266 has them.
type stubborn struct {
	needMatch  bool // 428 without If-Match
	neverMatch bool // 412 with it
	onceOnly   bool // 400 to Continuous

	mu              sync.Mutex // guards the fields below
	noSession       int        // status of the next POST of a session; 0: it opens one
	expireAt        string     // method after which the session is over
	expired         bool
	basic           int // requests with a password
	target, enabled string
}

func (b *stubborn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	answer := func(status int, body string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
	if _, _, ok := r.BasicAuth(); ok {
		b.basic++
	}
	const system = "/redfish/v1/Systems/1"
	switch path := strings.TrimSuffix(r.URL.Path, "/"); {
	case path == "/redfish/v1":
		answer(200, `{"@odata.id":"/redfish/v1/","Id":"Root","Name":"Root","Systems":{"@odata.id":"/redfish/v1/Systems"},"Links":{"Sessions":{"@odata.id":"/redfish/v1/SessionService/Sessions"}}}`)
	case strings.HasPrefix(path, "/redfish/v1/SessionService/Sessions"):
		if r.Method != http.MethodPost {
			answer(200, `{}`)
			return
		}
		if status := b.noSession; status != 0 {
			b.noSession = 0
			answer(status, `{"error":{"code":"x","message":"maximum number of sessions reached"}}`)
			return
		}
		b.expired = false
		w.Header().Set("X-Auth-Token", "t")
		w.Header().Set("Location", "/redfish/v1/SessionService/Sessions/1")
		answer(201, `{}`)
	case b.expired:
		answer(401, `{}`)
	case path == "/redfish/v1/Systems":
		answer(200, `{"Members":[{"@odata.id":"`+system+`"}]}`)
	case path == system && r.Method == http.MethodGet:
		w.Header().Set("ETag", `"abc"`)
		answer(200, `{"@odata.id":"`+system+`","@odata.etag":"\"abc\"","Id":"1","Name":"S","PowerState":"Off","Boot":{"BootSourceOverrideTarget":"`+b.target+`","BootSourceOverrideEnabled":"`+b.enabled+`"}}`)
	case path == system && r.Method == http.MethodPatch:
		var q struct {
			Boot struct{ BootSourceOverrideTarget, BootSourceOverrideEnabled string }
		}
		json.NewDecoder(r.Body).Decode(&q)
		match := r.Header.Get("If-Match")
		switch {
		case b.needMatch && match != `"abc"`:
			answer(428, `{"error":{"code":"Base.1.8.PreconditionRequired","message":"If-Match is required"}}`)
		case b.neverMatch && match != "":
			answer(412, `{"error":{"code":"Base.1.8.PreconditionFailed","message":"no match"}}`)
		case b.onceOnly && q.Boot.BootSourceOverrideEnabled == "Continuous":
			answer(400, `{"error":{"code":"Base.1.8.PropertyValueNotInList","message":"Continuous"}}`)
		default:
			b.target, b.enabled = q.Boot.BootSourceOverrideTarget, q.Boot.BootSourceOverrideEnabled
			b.expired = b.expireAt == r.Method
			w.WriteHeader(204)
		}
	default:
		answer(404, `{}`)
	}
}

func (b *stubborn) open(t *testing.T) *Client {
	t.Helper()
	srv := httptest.NewServer(b)
	t.Cleanup(srv.Close)
	c, err := (&Driver{Poll: time.Millisecond}).Open(bmc.Target{Node: "n", DriverInfo: map[string]string{
		"redfish_address": srv.URL, "redfish_username": "u", "redfish_password": "p"}})
	if err != nil {
		t.Fatal(err)
	}
	return c.(*Client)
}

// TestFailedLoginKeepsTheFence: one failed login, all sessions taken or the BMC starting, made a client use the password
// for every request of its life, and no session to fence by.
func TestFailedLoginKeepsTheFence(t *testing.T) {
	record := func(context.Context, string) error { return nil }
	for status, kind := range map[int]fault.Kind{500: fault.Busy, 400: fault.Busy, 429: fault.Busy, 401: fault.Unauthenticated} {
		b := &stubborn{target: "None", enabled: "Disabled", noSession: status}
		c := b.open(t)
		if fenced, err := c.Fence(t.Context(), nil, record); fenced || !fault.Is(err, kind) {
			t.Errorf("%d at login: fenced %v, %v, want %s", status, fenced, err, kind)
		}
		if fenced, err := c.Fence(t.Context(), nil, record); !fenced || err != nil {
			t.Errorf("after a %d at login: fenced %v, %v", status, fenced, err)
		}
		if b.basic != 0 {
			t.Errorf("after a %d at login the password went out with %d requests", status, b.basic)
		}
	}
	b := &stubborn{target: "None", enabled: "Disabled", noSession: 405}
	if fenced, err := b.open(t).Fence(t.Context(), nil, record); fenced || err != nil {
		t.Errorf("a BMC without sessions: fenced %v, %v", fenced, err)
	}
}

// TestBootDeviceOfStubbornBMCs: one that insists on If-Match, one that never matches its own tag, one that knows only
// the next boot.
func TestBootDeviceOfStubbornBMCs(t *testing.T) {
	for name, b := range map[string]*stubborn{"plain": {}, "needs If-Match": {needMatch: true}, "never matches": {neverMatch: true}, "once only": {onceOnly: true}} {
		b.target, b.enabled = "None", "Disabled"
		c := b.open(t)
		if err := c.SetBootDevice(t.Context(), bmc.Boot{Device: bmc.DeviceDisk, Persistent: true}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := c.BootDevice(t.Context()); err != nil || got.Device != bmc.DeviceDisk || got.Persistent == b.onceOnly {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	b := &stubborn{onceOnly: true, needMatch: true, neverMatch: true, target: "None", enabled: "Disabled"}
	if err := b.open(t).SetBootDevice(t.Context(), bmc.Boot{Device: bmc.DeviceDisk, Persistent: true}); err == nil {
		t.Error("a BMC that takes no request at all was set")
	}
}

// TestSessionEndedAfterTheChangeWasSent: the error said that nothing was changed.
func TestSessionEndedAfterTheChangeWasSent(t *testing.T) {
	b := &stubborn{target: "None", enabled: "Disabled", expireAt: http.MethodPatch}
	c := b.open(t)
	if _, err := c.Fence(t.Context(), nil, func(context.Context, string) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := c.SetBootDevice(t.Context(), bmc.Boot{Device: bmc.DevicePXE}); !fault.Is(err, fault.UnknownOutcome) {
		t.Errorf("%v, want unknown outcome", err)
	}
	if _, err := c.Power(t.Context()); err != nil { // logs in
		t.Fatal(err)
	}
	b.mu.Lock()
	b.expired = true
	b.mu.Unlock()
	if err := c.SetBootDevice(t.Context(), bmc.Boot{Device: bmc.DeviceDisk}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("before it was sent: %v, want unavailable", err)
	}
}
