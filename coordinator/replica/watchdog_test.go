package replica

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/replica/bootstrap"
	"github.com/farrier-project/farrier/coordinator/replica/fatal"
	"github.com/farrier-project/farrier/coordinator/replica/home"
)

func TestWatch(t *testing.T) {
	idle := sight{commit: 5}
	writing, another := sight{write: 1, commit: 5}, sight{write: 2, commit: 5}
	due, later := sight{commit: 5, due: true}, sight{commit: 6, due: true}
	for _, c := range []struct {
		name        string
		seen        []sight
		hung, stuck int
	}{
		{"nothing to do", []sight{idle, idle, idle}, 0, 0},
		{"one write", []sight{writing, writing, writing}, 2, 0},
		{"a write each time", []sight{writing, another, writing}, 0, 0},
		{"it ended", []sight{writing, writing, idle}, 0, 0},
		{"a majority has it", []sight{due, due, due}, 0, 2},
		{"it commits", []sight{due, later, due}, 0, 0},
		{"it waits for others in between", []sight{due, due, idle, due}, 0, 0},
	} {
		var w watch
		for _, s := range c.seen {
			w.look(s)
		}
		if w.hung != c.hung || w.stuck != c.stuck {
			t.Errorf("%s: hung at %d looks, stuck at %d; want %d, %d", c.name, w.hung, w.stuck, c.hung, c.stuck)
		}
	}
}

// slowSnaps is a store whose snapshots take a time to write once it is set.
type slowSnaps struct {
	raft.SnapshotStore
	took atomic.Int64 // nanoseconds
}

func (s *slowSnaps) Create(v raft.SnapshotVersion, index, term uint64, conf raft.Configuration, at uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	time.Sleep(time.Duration(s.took.Load())) // of the bubble's clock
	return s.SnapshotStore.Create(v, index, term, conf, at, trans)
}

// traffic proposes ten times a second until stop is called, which answers how many proposals were answered.
func traffic(t *testing.T, m *member) (stop func() int) {
	ctx, cancel := context.WithCancel(t.Context())
	answered := make(chan int)
	go func() {
		n := 0
		for ctx.Err() == nil {
			if _, err := m.Propose(ctx, command.Command{Header: header("x"), Body: putMember(n)}); err == nil {
				n++
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
		answered <- n
	}()
	return func() int {
		cancel()
		return <-answered
	}
}

// bitesEarly is a Config whose watchdog bites after less than a snapshot takes to be sent.
func bitesEarly(cfg *Config) {
	cfg.SnapshotEvery, cfg.TrailingLogs, cfg.Watchdog = 20, 5, 500*time.Millisecond
	cfg.Memory.Snapshots = &slowSnaps{SnapshotStore: cfg.Memory.Snapshots}
}

const slowInstall = 1500 * time.Millisecond // longer than bitesEarly's watchdog, shorter than raft waits in memory

func withSnapshot(t *testing.T, m *member) {
	t.Helper()
	for i := range 100 {
		propose(t, m, putMember(i))
	}
	must(t, m.raft.Snapshot().Error())
}

// TestLeaderEndedWhileAMemberJoined: the leader of one took the vote of the second for needed at once, waited for it while it
// read a snapshot, took the wait for its own disk's, and ended itself; so did each of its successors.
func TestLeaderEndedWhileAMemberJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, bitesEarly)
		defer c.close()
		lead := c.leader()
		withSnapshot(t, lead)
		m := &member{name: "c2", addr: "addr-2", cfg: lead.cfg}
		m.cfg.Member, m.cfg.Advertise, m.cfg.Memory = m.name, m.addr, home.NewMemory()
		slow := &slowSnaps{SnapshotStore: m.cfg.Memory.Snapshots}
		slow.took.Store(int64(slowInstall))
		m.cfg.Memory.Snapshots = slow
		must(t, bootstrap.Join(m.cfg.Place))
		c.members = append(c.members, m)
		c.start(m)

		added := make(chan error, 1)
		stop := traffic(t, lead)
		go func() { added <- lead.AddVoter(context.Background(), m.name, m.addr) }()
		time.Sleep(slowInstall - 200*time.Millisecond)
		if s, ok := lead.server(m.name); !ok || s.Suffrage == raft.Voter {
			t.Errorf("while it reads a snapshot it is %+v", s)
		}
		if n := stop(); n < 10 {
			t.Errorf("%d proposals were answered meanwhile", n)
		}
		must(t, <-added)
		if s, _ := lead.server(m.name); s.Suffrage != raft.Voter {
			t.Errorf("it is %+v", s)
		}
		must(t, lead.latch.Failed())
		propose(t, lead, putMember(200))
	})
}

// TestAddVoterGoesOn: a member that has not caught up is no voter when the caller's patience ends, and becomes one at the
// next call. One that never comes costs the cluster nothing.
func TestAddVoterGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, bitesEarly)
		defer c.close()
		lead := c.leader()
		m := &member{name: "c2", addr: "addr-2", cfg: lead.cfg}
		m.cfg.Member, m.cfg.Advertise, m.cfg.Memory = m.name, m.addr, home.NewMemory()
		must(t, bootstrap.Join(m.cfg.Place))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := lead.AddVoter(ctx, m.name, m.addr); err == nil || !strings.Contains(err.Error(), "c2 has not caught up yet") {
			t.Fatalf("got %v", err)
		}
		propose(t, lead, putMember(1))
		c.members = append(c.members, m)
		c.start(m)
		must(t, lead.AddVoter(t.Context(), m.name, m.addr))
		if s, _ := lead.server(m.name); s.Suffrage != raft.Voter {
			t.Errorf("it is %+v", s)
		}
	})
}

// TestLeaderEndedWhileAVoterGotASnapshot: with one of three gone, the leader can commit nothing while the other is sent a
// snapshot. To end itself only makes the other start again.
func TestLeaderEndedWhileAVoterGotASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, func(cfg *Config) {
			bitesEarly(cfg)
			cfg.Election = 4 * time.Second // heartbeats in memory wait behind the snapshot, those on a socket do not
		})
		defer c.close()
		lead := c.leader()
		late, gone := c.others(lead)[0], c.others(lead)[1]
		c.net.Isolate(late.addr)
		withSnapshot(t, lead)
		late.cfg.Memory.Snapshots.(*slowSnaps).took.Store(int64(slowInstall))
		gone.stop()
		must(t, <-gone.done)
		stop := traffic(t, lead)
		c.net.Heal(late.addr)
		c.net.Isolate(gone.addr)
		time.Sleep(slowInstall)
		lead = c.leader(lead, late)
		propose(t, lead, putMember(200))
		stop()
		for _, m := range []*member{lead, late} {
			if err := m.latch.Failed(); err != nil {
				t.Errorf("%s ended itself: %v", m.name, err)
			}
		}
	})
}

// TestFollowerWithAHungDiskServedOn: its heartbeats went through, so that it counted as present, and its readers were told
// that there was no leader.
func TestFollowerWithAHungDiskServedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := map[string]*hanging{}
		c := newCluster(t, 3, func(cfg *Config) {
			stores[cfg.Member] = &hanging{LogStore: cfg.Memory.Logs}
			cfg.Memory.Logs = stores[cfg.Member]
		})
		defer c.close()
		lead := c.leader()
		bad := c.others(lead)[0]
		release := make(chan struct{})
		h := stores[bad.name]
		h.mu.Lock()
		h.hang = release
		h.mu.Unlock()
		start := time.Now()
		propose(t, lead, putMember(1))
		var stop *fatal.Error
		if err := <-bad.done; !errors.As(err, &stop) || !strings.Contains(err.Error(), "a write to memory did not end") {
			t.Fatalf("Run returned %v", err)
		}
		if d := time.Since(start); d < 3*time.Second || d > 4*time.Second {
			t.Errorf("it took %v", d)
		}
		propose(t, lead, putMember(2))
		close(release)
	})
}

// TestLagShowedNowhere: a follower that answers heartbeats and lacks entries looked healthy.
func TestLagShowedNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := map[string]*hanging{}
		c := newCluster(t, 3, func(cfg *Config) {
			stores[cfg.Member] = &hanging{LogStore: cfg.Memory.Logs}
			cfg.Memory.Logs = stores[cfg.Member]
			cfg.Watchdog = time.Hour // it would end the member
		})
		defer c.close()
		lead := c.leader()
		bad := c.others(lead)[0]
		of := func(m *member) Server {
			for _, s := range lead.Servers() {
				if s.ID == m.name {
					return s
				}
			}
			t.Fatalf("%s is no member", m.name)
			return Server{}
		}
		time.Sleep(10 * time.Second)
		if s := of(bad); s.Lag > time.Second || s.Behind != 0 || s.Match == 0 {
			t.Errorf("all is well: %+v", s)
		}
		release := make(chan struct{})
		h := stores[bad.name]
		h.mu.Lock()
		h.hang = release
		h.mu.Unlock()
		for i := range 20 {
			propose(t, lead, putMember(i))
		}
		time.Sleep(15 * time.Second)
		if s := of(bad); s.Lag < 14*time.Second || s.Behind < 20 {
			t.Errorf("its disk hangs: %+v", s)
		}
		if s := of(c.others(lead)[1]); s.Lag > time.Second || s.Behind != 0 {
			t.Errorf("the other: %+v", s)
		}
		h.mu.Lock()
		h.hang = nil
		h.mu.Unlock()
		close(release)
		for range 60 { // raft waits for longer from try to try
			if time.Sleep(time.Second); of(bad).Behind == 0 {
				break
			}
		}
		if s := of(bad); s.Lag > time.Second || s.Behind != 0 {
			t.Errorf("it caught up: %+v", s)
		}
	})
}
