package replica

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/replica/entry"
	"github.com/farrier-project/farrier/coordinator/replica/upload"
	"github.com/farrier-project/farrier/pkg/fault"
)

// manyParts makes a state whose archive has more than one part, and saves it.
func manyParts(t *testing.T, m *member) []byte {
	t.Helper()
	for i := range 400 {
		b := putMember(i).(command.PutMember)
		b.Member.APIAddress = strings.Repeat("a", upload.PartBytes/100)
		propose(t, m, b)
	}
	var saved bytes.Buffer
	_, err := m.SaveSnapshot(t.Context(), &saved)
	must(t, err)
	if saved.Len() < 3*upload.PartBytes {
		t.Fatalf("the archive has %d bytes: the test shows nothing", saved.Len())
	}
	return saved.Bytes()
}

// tapped is a store that tells of the entries that it is about to store, and takes a time to read one.
type tapped struct {
	raft.LogStore
	stores atomic.Pointer[func(*raft.Log)]
	reads  atomic.Int64 // nanoseconds
}

// tap makes a member's store a tapped one, and tapOf is that.
func tap(cfg *Config) { cfg.Memory.Logs = &tapped{LogStore: cfg.Memory.Logs} }

func tapOf(m *member) *tapped { return m.cfg.Memory.Logs.(*tapped) }

func (s *tapped) on(stores func(*raft.Log)) { s.stores.Store(&stores) }

func (s *tapped) StoreLogs(logs []*raft.Log) error {
	for _, l := range logs {
		if stores := s.stores.Load(); stores != nil && l.Type == raft.LogCommand {
			(*stores)(l)
		}
	}
	return s.LogStore.StoreLogs(logs)
}

func (s *tapped) GetLog(index uint64, l *raft.Log) error {
	time.Sleep(time.Duration(s.reads.Load())) // of the bubble's clock
	return s.LogStore.GetLog(index, l)
}

// marker is a change that an archive of before does not have.
func marker(id node.ID) command.Body {
	return command.CreateNode{Node: node.Pack(&node.Node{ID: id, Driver: "fake-hardware", Group: "default"})}
}

// alike fails unless all members have the same state, at the index that the leader has now.
func alike(t *testing.T, c *cluster) {
	t.Helper()
	lead := c.leader()
	propose(t, lead, putMember(9999))
	index, err := lead.ReadIndex(t.Context())
	must(t, err)
	for _, m := range c.members {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		must(t, m.WaitApplied(ctx, index))
		cancel()
		if m.View().Hash() != lead.View().Hash() {
			t.Errorf("%s has another state than %s", m.name, lead.name)
		}
	}
}

// TestLeaderThatDiedWithinARestoreWasWedged: it had put the archive's state in place before any other member, came back with
// a state and an index that nobody else had, and followed nobody for ever. It is cut off at each entry of a restore in
// turn, and stopped.
func TestLeaderThatDiedWithinARestoreWasWedged(t *testing.T) {
	for what, at := range map[string]func(l *raft.Log, n int) bool{
		"first part":  func(l *raft.Log, n int) bool { return entry.Kind(l.Data[0]) == entry.Part && n == 1 },
		"second part": func(l *raft.Log, n int) bool { return entry.Kind(l.Data[0]) == entry.Part && n == 2 },
		"last entry":  func(l *raft.Log, n int) bool { return entry.Kind(l.Data[0]) == entry.Restore },
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t, 3, tap)
			defer c.close()
			old := c.leader()
			saved := manyParts(t, old)
			propose(t, old, marker("marker"))
			generation := old.View().Cluster().Generation
			n := 0
			tapOf(old).on(func(l *raft.Log) {
				if n++; at(l, n) {
					c.net.Isolate(old.addr)
				}
			})
			_, err := old.RestoreSnapshot(t.Context(), bytes.NewReader(saved))
			if want := what == "last entry"; err == nil || fault.Is(err, fault.UnknownOutcome) != want {
				t.Errorf("%s: got %v", what, err)
			}
			if got := old.View().Cluster().Generation; got != generation {
				t.Errorf("%s: what was not committed shows: generation %d", what, got)
			}
			tapOf(old).stores.Store(nil)
			old.stop()
			<-old.done // it was cut off: it may complain
			propose(t, c.leader(c.others(old)...), putMember(1001))
			c.start(old)
			c.net.Heal(old.addr)
			alike(t, c)
			if _, ok := old.View().Node("marker"); !ok {
				t.Errorf("%s: what came after the archive is gone", what)
			}
			_, err = c.leader().RestoreSnapshot(t.Context(), bytes.NewReader(saved))
			must(t, err)
			alike(t, c)
			for _, m := range c.members { // the log holds the archive: it is applied again
				m.stop()
				must(t, <-m.done)
			}
			for _, m := range c.members {
				c.start(m)
			}
			alike(t, c)
			if _, ok := old.View().Node("marker"); ok {
				t.Errorf("%s: the second restore is gone", what)
			}
		})
	}
}

// TestRestoreUnderTrafficWasMissed: the restored state was stamped with an index that others had used meanwhile, so that
// watchers saw nothing, indexes went back and reads waited for one that never came.
func TestRestoreUnderTrafficWasMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, tap)
		defer c.close()
		lead := c.leader()
		saved := manyParts(t, lead)
		tapOf(lead).on(func(l *raft.Log) {
			if entry.Kind(l.Data[0]) == entry.Part {
				go lead.Propose(context.Background(), command.Command{Header: header("x"), Body: putMember(int(l.Index))})
			}
		})
		before := lead.View().Position()
		_, err := lead.RestoreSnapshot(t.Context(), bytes.NewReader(saved))
		must(t, err)
		v := lead.View()
		if v.Index() <= before.Index+4 {
			t.Errorf("index %d after %d: there was no traffic, or it went back", v.Index(), before.Index)
		}
		if evs, floor, compacted := v.Events(before, 10); !compacted {
			t.Errorf("a watcher at %v gets %d events, the floor is %v", before, len(evs), floor)
		} else if evs, _, compacted := v.Events(floor, 10); compacted || len(evs) == 0 || evs[0].Type != "cluster.generation" {
			t.Errorf("from the floor: %v, compacted %v", evs, compacted)
		}
		index, err := lead.ReadIndex(t.Context())
		must(t, err)
		for _, m := range c.members {
			must(t, m.WaitApplied(t.Context(), index)) // nobody proposes any more
		}
		alike(t, c)
	})
}

// TestLeaderEndedWhileItApplied: the watchdog took an entry that takes long to apply for a disk that hangs.
func TestLeaderEndedWhileItApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, func(cfg *Config) {
			tap(cfg)
			cfg.Watchdog = 500 * time.Millisecond
		})
		defer c.close()
		lead := c.leader()
		saved := manyParts(t, lead)
		stop := traffic(t, lead)
		tapOf(lead).on(func(l *raft.Log) {
			if entry.Kind(l.Data[0]) == entry.Restore {
				tapOf(lead).reads.Store(int64(500 * time.Millisecond)) // each of the parts that it reads back
			}
		})
		began := time.Now()
		_, err := lead.RestoreSnapshot(t.Context(), bytes.NewReader(saved))
		must(t, err)
		if d := time.Since(began); d < 2*time.Second {
			t.Fatalf("it took %v: the test shows nothing", d)
		}
		stop()
		must(t, lead.latch.Failed())
	})
}
