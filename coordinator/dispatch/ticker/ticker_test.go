package ticker

import (
	"context"
	"log/slog"
	"reflect"
	"testing"
	"time"

	"github.com/farrier-project/farrier/coordinator/apply"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/dispatch/proposer"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// member is a replica of one member with real state and no log, whose clock the test moves. One goroutine uses it.
type member struct {
	st    *apply.Applier
	index uint64
	term  uint64 // 0: it follows
	deaf  bool   // proposals fail
	now   time.Duration
	ticks []command.Tick // applied
}

func (m *member) Propose(_ context.Context, cmds ...command.Command) ([]command.Result, error) {
	if m.deaf {
		return nil, fault.New(fault.NoQuorum, "propose", "no majority")
	}
	m.index++
	results := make([]command.Result, len(cmds))
	for i, c := range cmds {
		results[i] = m.st.Apply(m.index, c)
		if tick, ok := c.Body.(command.Tick); ok {
			m.ticks = append(m.ticks, tick)
		}
	}
	return results, nil
}

func (m *member) View() *state.View       { return m.st.View() }
func (m *member) Leading() (uint64, bool) { return m.term, m.term != 0 }
func (m *member) Now() time.Time          { return time.Unix(0, int64(m.now)) }
func (m *member) Boottime() time.Duration { return m.now }

func newTicker(t *testing.T) (*Ticker, *member, *[]Renewal) {
	m := &member{st: apply.New(), term: 1}
	p := proposer.New("c1", m, m)
	for _, b := range []command.Body{
		command.InitCluster{ClusterID: "test", Settings: command.DefaultSettings()},
		command.OpenSession{Session: "s", Agent: "a", Group: "g", Drivers: []string{"redfish"}, Weight: 1, Journal: "j", Incarnation: 1, Level: 1},
	} {
		if res := m.st.Apply(m.index+1, command.Command{Header: command.Header{Cluster: "test", Level: 1}, Body: b}); res.Err != nil {
			t.Fatal(res.Err)
		}
		m.index++
	}
	renewals := new([]Renewal)
	tk := New(Options{
		Proposer: p, Leading: m.Leading, Renewals: func() []Renewal { return *renewals }, Ticked: func() {},
		Clock: m, Log: slog.New(slog.DiscardHandler),
	})
	return tk, m, renewals
}

// step ticks after so much time and answers the ticks that came of it.
func (m *member) step(t *testing.T, tk *Ticker, d time.Duration) []command.Tick {
	m.now += d
	was := len(m.ticks)
	tk.Tick(t.Context())
	return m.ticks[was:]
}

func TestTicksCarryTimeRenewalsAndClients(t *testing.T) {
	tk, m, renewals := newTicker(t)
	if got := m.step(t, tk, time.Hour); len(got) != 1 || !got[0].FirstOfTerm || got[0].D != 0 {
		t.Fatalf("the first tick of the term: %+v", got)
	}
	applied := 0
	*renewals = []Renewal{{Session: "s", Applied: func() { applied++ }}}
	tk.ClientSeen("client-2")
	tk.ClientSeen("client-1")
	tk.ClientSeen("client-2")
	want := command.Tick{D: 250 * time.Millisecond, Renew: []string{"s"}, ClientSeen: []string{"client-1", "client-2"}}
	if got := m.step(t, tk, 250*time.Millisecond); len(got) != 1 || !reflect.DeepEqual(got[0], want) || applied != 1 {
		t.Errorf("a tick is %+v, want %+v; %d renewals are told of", got, want, applied)
	}
	*renewals = nil
	if got := m.step(t, tk, time.Hour); len(got) != 1 || got[0].D != state.MaxTick || len(got[0].ClientSeen) != 0 {
		t.Errorf("after an hour: %+v", got)
	}
}

func TestRenewalOfATickThatFailedIsNotAcknowledged(t *testing.T) {
	tk, m, renewals := newTicker(t)
	m.step(t, tk, time.Second)
	*renewals = []Renewal{{Session: "s", Applied: func() { t.Error("it is told that the tick was applied") }}}
	m.deaf = true
	if got := m.step(t, tk, time.Second); len(got) != 0 {
		t.Fatalf("applied %+v", got)
	}
}

func TestFollowerMovesNoTime(t *testing.T) {
	tk, m, _ := newTicker(t)
	m.term = 0
	if got := m.step(t, tk, time.Second); len(got) != 0 {
		t.Errorf("a follower's ticks: %+v", got)
	}
	m.term = 7
	if got := m.step(t, tk, time.Second); len(got) != 1 || !got[0].FirstOfTerm {
		t.Errorf("the first tick of a new term: %+v", got)
	}
}
