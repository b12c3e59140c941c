package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/apply"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/replica/archive"
	"github.com/farrier-project/farrier/coordinator/replica/bootstrap"
	"github.com/farrier-project/farrier/coordinator/replica/entry"
	"github.com/farrier-project/farrier/coordinator/replica/fatal"
	"github.com/farrier-project/farrier/coordinator/replica/home"
	"github.com/farrier-project/farrier/coordinator/replica/machine"
	"github.com/farrier-project/farrier/pkg/fault"
)

// slowAcks is a transport whose answers to AppendEntries can be held back, as a paused process holds them.
type slowAcks struct {
	*raft.InmemTransport
	mu   sync.Mutex
	held int
	hold chan struct{} // nil: not holding
}

func (s *slowAcks) AppendEntries(id raft.ServerID, target raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := s.InmemTransport.AppendEntries(id, target, req, resp)
	s.mu.Lock()
	hold := s.hold
	if hold != nil && err == nil {
		s.held++
	}
	s.mu.Unlock()
	if hold != nil {
		<-hold
	}
	return err
}

// TestDeposedLeaderDoesNotAnswerReads: a leader whose answers are late is deposed without knowing. raft's VerifyLeader
// believes an answer to a request from before; ReadIndex must not.
func TestDeposedLeaderDoesNotAnswerReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow *slowAcks
		c := newCluster(t, 3, func(cfg *Config) {
			if cfg.Member == "c1" {
				slow = &slowAcks{InmemTransport: cfg.Network.Transport(cfg.Advertise)}
				cfg.Transport = slow
				cfg.Election = 5 * time.Second // it takes long to notice
			}
		})
		defer c.close()
		old := c.members[0]
		if c.leader() != old {
			t.Fatal("the first member does not lead")
		}
		propose(t, old, putMember(1))
		time.Sleep(time.Second)
		release := make(chan struct{})
		slow.mu.Lock()
		slow.hold = release
		slow.mu.Unlock()
		for held := 0; held < 2; { // a heartbeat to each of the others is answered, and the answer is held
			time.Sleep(10 * time.Millisecond)
			slow.mu.Lock()
			held = slow.held
			slow.mu.Unlock()
		}
		c.net.Isolate(old.addr)
		lead := c.leader(c.others(old)...)
		propose(t, lead, putMember(2))
		if _, ok := old.Leading(); !ok {
			t.Fatal("the old leader noticed already: the test shows nothing")
		}

		verified := old.raft.VerifyLeader()
		read := make(chan error, 1)
		go func() {
			_, err := old.ReadIndex(context.Background())
			read <- err
		}()
		synctest.Wait()
		close(release)
		if err := verified.Error(); err != nil {
			t.Logf("VerifyLeader refused this time: %v", err)
		}
		if err := <-read; !fault.Is(err, fault.NoQuorum) && !fault.Is(err, fault.NotLeader) {
			t.Fatalf("a deposed leader answered a read: %v", err)
		}
		if _, ok := old.View().Member("m2"); ok {
			t.Fatal("the old leader knows the newest write: the test shows nothing")
		}
	})
}

// hanging is a store whose writes hang while it is told to.
type hanging struct {
	raft.LogStore
	mu   sync.Mutex
	hang chan struct{}
}

func (h *hanging) StoreLogs(l []*raft.Log) error {
	h.mu.Lock()
	hang := h.hang
	h.mu.Unlock()
	if hang != nil {
		<-hang
	}
	return h.LogStore.StoreLogs(l)
}

func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := map[string]*hanging{}
		c := newCluster(t, 3, func(cfg *Config) {
			stores[cfg.Member] = &hanging{LogStore: cfg.Memory.Logs}
			cfg.Memory.Logs = stores[cfg.Member]
		})
		defer c.close()
		old := c.leader()
		propose(t, old, putMember(1))
		release := make(chan struct{})
		h := stores[old.name]
		h.mu.Lock()
		h.hang = release
		h.mu.Unlock()
		start := time.Now()
		answered := make(chan error, 1)
		go func() {
			_, err := old.Propose(context.Background(), command.Command{Header: header("x"), Body: putMember(2)})
			answered <- err
		}()
		var stop *fatal.Error
		if err := <-old.done; !errors.As(err, &stop) || stop.ExitCode != 70 {
			t.Fatalf("Run returned %v", err)
		}
		if d := time.Since(start); d < 3*time.Second || d > 4*time.Second {
			t.Errorf("the watchdog took %v", d)
		}
		if err := <-answered; !fault.Is(err, fault.UnknownOutcome) {
			t.Errorf("the waiting proposal: %v", err)
		}
		lead := c.leader(c.others(old)...)
		propose(t, lead, putMember(3))
		if d := time.Since(start); d > 6*time.Second {
			t.Errorf("another member took over after %v", d)
		}
		close(release)
	})
}

func TestDiskErrorStopsTheMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disks := map[string]*failing{}
		c := newCluster(t, 3, func(cfg *Config) {
			f := &failing{LogStore: cfg.Memory.Logs}
			disks[cfg.Member], cfg.Memory.Logs = f, f
		})
		defer c.close()
		lead := c.leader()
		follower := c.others(lead)[0]
		disks[follower.name].fail(errors.New("input/output error"))
		propose(t, lead, putMember(1))
		var stop *fatal.Error
		if err := <-follower.done; !errors.As(err, &stop) || !strings.Contains(err.Error(), "input/output error") {
			t.Fatalf("Run returned %v", err)
		}
		disks[lead.name].fail(errors.New("no space left on device"))
		_, err := lead.Propose(t.Context(), command.Command{Header: header("x"), Body: putMember(2)})
		if err == nil {
			t.Fatal("a write that failed was answered")
		}
		if err := <-lead.done; !errors.As(err, &stop) || !strings.Contains(err.Error(), "no space left") {
			t.Fatalf("Run returned %v", err)
		}
	})
}

// TestCorruptFollower damages one entry of a stopped member: it refuses to start and says what to do, the others go on,
// and it comes back empty.
func TestCorruptFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		defer c.close()
		lead := c.leader()
		for i := range 20 {
			propose(t, lead, putMember(i))
		}
		bad := c.others(lead)[0]
		bad.stop()
		if err := <-bad.done; err != nil {
			t.Fatal(err)
		}
		var l raft.Log
		must(t, bad.cfg.Memory.Logs.GetLog(9, &l))
		l.Data = bytes.Clone(l.Data)
		l.Data[len(l.Data)/2] ^= 1
		must(t, bad.cfg.Memory.Logs.StoreLog(&l))
		_, err := Open(bad.cfg)
		checkAdvice(t, err, "memory")
		if !strings.Contains(err.Error(), "entry 9") {
			t.Errorf("the index is missing in %q", err)
		}
		propose(t, lead, putMember(100))

		must(t, lead.RemoveServer(t.Context(), bad.name))
		bad.cfg.Memory = home.NewMemory()
		must(t, bootstrap.Join(bad.cfg.Place))
		c.start(bad)
		must(t, lead.AddVoter(t.Context(), bad.name, bad.addr))
		index, err := lead.ReadIndex(t.Context())
		must(t, err)
		must(t, bad.WaitApplied(t.Context(), index))
		if bad.View().Hash() != lead.View().Hash() {
			t.Error("the member that came back has another state")
		}
	})
}

// TestCorruptEntryFoundWhileRunning: what was sound at the start rots later; the member stops with the same advice.
func TestCorruptEntryFoundWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		defer c.close()
		m := c.leader()
		for i := range 5 {
			propose(t, m, putMember(i))
		}
		var l raft.Log
		must(t, m.cfg.Memory.Logs.GetLog(5, &l))
		l.Term++
		must(t, m.cfg.Memory.Logs.StoreLog(&l))
		got := make(chan error, 1)
		go func() { // raft's goroutine would end here
			defer close(got)
			got <- m.home.Log.GetLog(5, &raft.Log{})
		}()
		if err, answered := <-got; answered {
			t.Fatalf("the caller went on with %v", err)
		}
		checkAdvice(t, <-m.done, "memory")
	})
}

func TestUnknownCommandStopsTheMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		defer c.close()
		m := c.leader()
		before := m.View().Hash()
		newer := []byte{0x0a, 0x06, 0x4a, 0x04, 0xc2, 0xbb, 0x01, 0x00} // a body with an unknown command
		go func() { m.submit(context.Background(), entry.Commands, newer, 1) }()
		err := <-m.done
		var e *fault.Error
		if !errors.As(err, &e) || e.Kind != fault.Version || !strings.Contains(err.Error(), "apply entry") || e.Help == "" {
			t.Fatalf("Run returned %v", err)
		}
		if m.View().Hash() != before {
			t.Error("the entry changed the state")
		}
	})
}

// TestFewLargeEntriesWereNeverSnapshotted: entries were counted, not their bytes, and a member that started after an import
// applied all of it again.
func TestFewLargeEntriesWereNeverSnapshotted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, func(cfg *Config) { cfg.SnapshotBytes = 4000 })
		defer c.close()
		lead := c.leader()
		time.Sleep(time.Minute) // here and below: of the bubble's clock
		if at := lead.Stats().Snapshot; at != 0 {
			t.Fatalf("a snapshot at %d of a log that has hardly grown", at)
		}
		for i := range 100 {
			propose(t, lead, putMember(i))
		}
		time.Sleep(2 * snapshotLook)
		taken := lead.Stats().Snapshot
		if taken == 0 {
			t.Fatal("no snapshot was taken")
		}
		time.Sleep(time.Minute)
		if at := lead.Stats().Snapshot; at != taken {
			t.Errorf("a second snapshot, at %d, though nothing has grown since %d", at, taken)
		}
	})
}

func TestSnapshotInstallAndRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		small := func(cfg *Config) { cfg.SnapshotEvery, cfg.TrailingLogs = 20, 5 }
		c := newCluster(t, 3, small)
		defer c.close()
		lead := c.leader()
		late := c.others(lead)[0]
		c.net.Isolate(late.addr)
		for i := range 100 {
			propose(t, lead, putMember(i))
		}
		time.Sleep(2 * time.Minute) // snapshots are looked for every 30 to 60 s
		if lead.Stats().Snapshot == 0 {
			t.Fatal("no snapshot was taken")
		}
		c.net.Heal(late.addr)
		lead = c.leader()
		propose(t, lead, putMember(200))
		index, err := lead.ReadIndex(t.Context())
		must(t, err)
		must(t, late.WaitApplied(t.Context(), index))
		if late.View().Hash() != lead.View().Hash() || late.Stats().Snapshot == 0 {
			t.Errorf("the late member did not come by a snapshot: %+v", late.Stats())
		}
		for _, m := range c.members {
			m.stop()
			must(t, <-m.done)
		}
		hash := lead.View().Hash()
		for _, m := range c.members {
			c.start(m)
		}
		again := c.leader()
		if again.View().Hash() != hash {
			t.Error("the state changed over a restart")
		}
	})
}

func TestArchive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		defer c.close()
		lead := c.leader()
		propose(t, lead, marker("1"))
		var saved bytes.Buffer
		a, err := lead.SaveSnapshot(t.Context(), &saved)
		must(t, err)
		if a.Cluster != testCluster || a.Index == 0 {
			t.Errorf("the saved says %+v", a)
		}
		propose(t, lead, marker("2"))
		generation := lead.View().Cluster().Generation
		for round := range 2 { // the second time, the archive is older than the cluster
			if _, err := lead.RestoreSnapshot(t.Context(), bytes.NewReader(saved.Bytes())); err != nil {
				t.Fatal(err)
			}
			now := lead.View().Cluster().Generation
			if now <= generation {
				t.Fatalf("round %d: generation %d after %d: tokens would be used again", round, now, generation)
			}
			generation = now
		}
		propose(t, lead, marker("3"))
		index, err := lead.ReadIndex(t.Context())
		must(t, err)
		for _, m := range c.members {
			must(t, m.WaitApplied(t.Context(), index))
			_, one := m.View().Node("1")
			_, two := m.View().Node("2")
			_, three := m.View().Node("3")
			if !one || two || !three || m.View().Hash() != lead.View().Hash() {
				t.Errorf("%s: nodes 1, 2, 3 present: %v, %v, %v", m.name, one, two, three)
			}
		}
		if _, err := c.others(lead)[0].RestoreSnapshot(t.Context(), bytes.NewReader(saved.Bytes())); !fault.Is(err, fault.NotLeader) {
			t.Errorf("on a follower: %v", err)
		}
	})
}

func TestArchiveOfAnotherCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		defer c.close()
		s := apply.New()
		s.Apply(1, command.Command{Header: command.Header{Cluster: "other", Level: 1}, Body: command.InitCluster{ClusterID: "other", Settings: command.DefaultSettings()}})
		var saved bytes.Buffer
		_, err := archive.Write(t.Context(), &saved, archive.Image{View: s.View(), Applied: 1}, time.Now())
		must(t, err)
		if _, err := c.leader().RestoreSnapshot(t.Context(), &saved); !fault.Is(err, fault.Invalid) {
			t.Fatalf("got %v", err)
		}
	})
}

// ray is a transport that once puts another command in place of one that it sends to a member.
type ray struct {
	*raft.InmemTransport
	to   atomic.Pointer[raft.ServerID]
	data []byte
}

func (y *ray) AppendEntries(id raft.ServerID, target raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if to := y.to.Load(); to != nil && *to == id && len(req.Entries) == 1 && req.Entries[0].Type == raft.LogCommand && y.to.CompareAndSwap(to, nil) {
		l, changed := *req.Entries[0], *req
		l.Data = y.data
		changed.Entries = []*raft.Log{&l}
		req = &changed
	}
	return y.InmemTransport.AppendEntries(id, target, req, resp)
}

// TestMinorityStops: one member is sent another entry than the rest have.
func TestMinorityStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wrongCommand, err := command.Encode(command.Command{Header: header("a cosmic ray"), Body: putMember(666)})
		must(t, err)
		rays := map[string]*ray{}
		c := newCluster(t, 3, func(cfg *Config) {
			y := &ray{InmemTransport: cfg.Network.Transport(cfg.Advertise), data: entry.Seal(testCluster, entry.Commands, wrongCommand)}
			rays[cfg.Member], cfg.Transport = y, y
		})
		defer c.close()
		lead := c.leader()
		wrong := c.others(lead)[0]
		id := raft.ServerID(wrong.name)
		rays[lead.name].to.Store(&id)
		for i := 0; lead.Stats().Committed < machine.HashEvery+5; i++ {
			if _, err := lead.Propose(t.Context(), command.Command{Header: header("x"), Body: putMember(i % 50)}); err != nil {
				t.Fatal(err)
			}
		}
		if rays[lead.name].to.Load() != nil {
			t.Fatal("all members were sent the same: the test shows nothing")
		}
		select {
		case err = <-wrong.done:
		case <-time.After(time.Minute):
			t.Fatal("the member that differs goes on")
		}
		if !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), fmt.Sprintf("index %d", machine.HashEvery)) {
			t.Fatalf("the member that differs: %v", err)
		}
		for _, m := range c.others(wrong) {
			if err := m.latch.Failed(); err != nil {
				t.Errorf("%s stopped: %v", m.name, err)
			}
		}
		propose(t, c.leader(c.others(wrong)...), putMember(1))
	})
}

// TestTheLogKeptGigabytes: 10,240 entries stay behind a snapshot, and in an import each has half a megabyte.
func TestTheLogKeptGigabytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, func(cfg *Config) { cfg.SnapshotBytes = 4000 })
		defer c.close()
		lead := c.leader()
		for i := range 1000 {
			propose(t, lead, putMember(i))
		}
		time.Sleep(3 * snapshotLook) // of the bubble's clock
		first, err := lead.home.Log.FirstIndex()
		must(t, err)
		if kept := lead.raft.LastIndex() - first; lead.Stats().Snapshot == 0 || kept > 500 {
			t.Errorf("%d entries stay behind the snapshot at %d", kept, lead.Stats().Snapshot)
		}
	})
}
