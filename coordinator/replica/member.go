package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/replica/boltfile"
	"github.com/farrier-project/farrier/coordinator/replica/entry"
	"github.com/farrier-project/farrier/coordinator/replica/fatal"
	"github.com/farrier-project/farrier/coordinator/replica/logstore"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Files of a data directory. The member file is written last: a directory without it holds no member.
const (
	memberFile  = "member.json"
	logFile     = "raft.db"
	snapshotDir = "snapshots"
)

// membership is what the member file holds: whose log this is. It keeps a directory from being used for another
// cluster or member, and a cluster from being made twice.
type membership struct {
	Cluster string `json:"cluster"`
	Member  string `json:"member"`
}

// Bootstrap makes the first member of a new cluster, once: a directory that holds a member is refused with fault.Exists.
// first is the InitCluster command; the member leads and applies it when it is opened. cfg.Advertise must be set.
func Bootstrap(cfg Config, first command.Command) error {
	const op = "bootstrap cluster"
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	init, ok := first.Body.(command.InitCluster)
	if !ok || init.ClusterID != cfg.Cluster || cfg.Advertise == "" {
		return fault.New(fault.Invalid, op, "the first command must make cluster %s, and the Raft address must be set", cfg.Cluster)
	}
	data, err := command.Encode(first)
	if err != nil {
		return err
	}
	return create(cfg, func(s *logstore.Store, _ *fatal.Latch) error {
		conf := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(cfg.Member), Address: raft.ServerAddress(cfg.Advertise)}}}
		if err := raft.BootstrapCluster(cfg.raft(), s, s, raft.NewDiscardSnapshotStore(), nil, conf); err != nil {
			return fault.New(fault.Internal, op, "%w", err)
		}
		return s.StoreLog(&raft.Log{Index: 2, Term: 1, Type: raft.LogCommand, Data: entry.Seal(cfg.Cluster, entry.Commands, data)})
	})
}

// Join makes an empty member, which the leader then adds with AddVoter. It is refused with fault.Exists when the
// directory holds a member.
func Join(cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	return create(cfg, func(*logstore.Store, *fatal.Latch) error { return nil })
}

// create makes an empty member and lets fill write its first records.
func create(cfg Config, fill func(*logstore.Store, *fatal.Latch) error) error {
	const op = "create member"
	latch := fatal.NewLatch(cfg.Log, func() {})
	o := logstore.Options{Cluster: cfg.Cluster, Member: cfg.Member, Latch: latch, File: "memory"}
	if m := cfg.Memory; m != nil {
		if m.made {
			return fault.New(fault.Exists, op, "the memory holds a member already")
		}
		o.Logs, o.Stable = m.Logs, m.Stable
		m.made = true
		s := logstore.New(o)
		return errors.Join(s.Init(), fill(s, latch))
	}
	if err := privateDir(cfg.Dir); err != nil {
		return err
	}
	if got, err := readMember(cfg.Dir); err == nil {
		return fault.New(fault.Exists, op, "%s holds member %s of cluster %s", cfg.Dir, got.Member, got.Cluster).
			WithHelp("start it with `farrier-coordinator run`; another cluster needs another data directory")
	} else if !fault.Is(err, fault.NotFound) {
		return err
	}
	path := filepath.Join(cfg.Dir, logFile)
	for _, left := range []string{path, filepath.Join(cfg.Dir, snapshotDir)} { // of an attempt that did not reach its end
		if err := os.RemoveAll(left); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	b, err := boltfile.Create(path)
	if err != nil {
		return fault.New(fault.Internal, op, "%w", err)
	}
	o.Logs, o.Stable, o.File = b, b, path
	s := logstore.New(o)
	if err := errors.Join(s.Init(), fill(s, latch), b.Close()); err != nil {
		return err
	}
	if err := boltfile.Check(path); err != nil { // bbolt's first pages, read back before anything depends on them
		return err
	}
	return writeMember(cfg.Dir, membership{Cluster: cfg.Cluster, Member: cfg.Member})
}

func readMember(dir string) (membership, error) {
	path := filepath.Join(dir, memberFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return membership{}, noMember(dir)
	}
	var m membership
	if err != nil || json.Unmarshal(raw, &m) != nil || m.Cluster == "" || m.Member == "" {
		return membership{}, fatal.Corrupt(path, "it does not name a member: %w", errors.Join(err, errors.New("bad content")))
	}
	return m, nil
}

func noMember(where string) *fault.Error {
	return fault.New(fault.NotFound, "open replica", "%s holds no member of a cluster", where).
		WithHelp("make a new cluster with `farrier-coordinator init`, or join one with `farrier-coordinator join TOKEN`")
}

func writeMember(dir string, m membership) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, memberFile)
	f, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(append(raw, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	return syncDir(dir)
}

// disk is the open files of a member.
type disk struct {
	path, snapshots string
	bolt            *boltfile.File
}

// openDisk opens a member's directory, after the log file was verified as a whole.
func openDisk(cfg Config) (*disk, error) {
	got, err := readMember(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if want := (membership{Cluster: cfg.Cluster, Member: cfg.Member}); got != want {
		return nil, fault.New(fault.Invalid, "open replica", "%s holds member %s of cluster %s, not %s of %s",
			cfg.Dir, got.Member, got.Cluster, want.Member, want.Cluster)
	}
	d := &disk{path: filepath.Join(cfg.Dir, logFile), snapshots: filepath.Join(cfg.Dir, snapshotDir)}
	if err := errors.Join(privateDir(cfg.Dir), privateDir(d.snapshots)); err != nil {
		return nil, err
	}
	if d.bolt, err = boltfile.Open(d.path); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *disk) close() error { return d.bolt.Close() }

// privateDir makes a directory that only this user can enter.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return nil
}

// AddVoter makes a voter of a member, or changes its address. On the leader only; it returns once the change is
// committed, and has waited for up to four election timeouts that all voters have it.
//
// A new member is sent the log first, and has no vote until it has caught up: a voter that takes minutes to read a snapshot
// could be the one that each commit waits for. Until then AddVoter waits, as long as ctx lets it; it fails with fault.Timeout,
// the member goes on catching up, and AddVoter is called again, here or at the next leader.
func (r *Replica) AddVoter(ctx context.Context, id, address string) error {
	const op = "add coordinator"
	now, there := r.server(id)
	if !there {
		r.trans.Forget(raft.ServerID(id)) // it may have been a member before, with another log
	}
	if !there || now.Suffrage != raft.Voter && string(now.Address) != address {
		err := r.change(ctx, op, func(t time.Duration) raft.IndexFuture {
			return r.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(address), 0, t)
		})
		if err != nil {
			return err
		}
	}
	if !there || now.Suffrage != raft.Voter {
		if err := r.caughtUp(ctx, id); err != nil {
			return err
		}
	}
	return r.change(ctx, op, func(t time.Duration) raft.IndexFuture {
		return r.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(address), 0, t)
	})
}

// caughtUp waits until a member had, within the last election timeout, all that was committed then: to send it the rest
// takes no longer (Raft dissertation, section 4.2.1).
func (r *Replica) caughtUp(ctx context.Context, id string) error {
	for {
		a, moved := r.trans.Newest(raft.ServerID(id))
		_, there := r.server(id)
		switch {
		case r.raft.State() != raft.Leader:
			return r.notLeader("add coordinator")
		case !there:
			return fault.New(fault.IllegalState, "add coordinator", "%s was removed meanwhile", id)
		case a.Term == r.raft.CurrentTerm() && time.Since(a.Level) <= r.cfg.Election:
			return nil
		}
		select {
		case <-moved:
		case <-time.After(r.cfg.Election): // without others nobody acknowledges anything
		case <-ctx.Done():
			return fault.New(fault.Timeout, "add coordinator", "%s has not caught up yet: it has %d of %d entries", id, a.Match, r.raft.CommitIndex())
		case <-r.latch.Fired():
			return fault.New(fault.Unavailable, "add coordinator", "%w", r.latch.Failed())
		case <-r.ended:
			return fault.New(fault.Unavailable, "add coordinator", "%w", errEnded)
		}
	}
}

// server is a member of the newest configuration.
func (r *Replica) server(id string) (s raft.Server, there bool) {
	for _, s := range r.servers() {
		if string(s.ID) == id {
			return s, true
		}
	}
	return raft.Server{}, false
}

// RemoveServer removes a member. On the leader only; it returns once the change is committed. The last voter stays.
func (r *Replica) RemoveServer(ctx context.Context, id string) error {
	if v := r.voters(); len(v) == 1 && string(v[0]) == id {
		return fault.New(fault.IllegalState, "remove coordinator", "%s is the only one", id)
	}
	return r.change(ctx, "remove coordinator", func(t time.Duration) raft.IndexFuture {
		return r.raft.RemoveServer(raft.ServerID(id), 0, t)
	})
}

func (r *Replica) change(ctx context.Context, op string, call func(time.Duration) raft.IndexFuture) error {
	if err := r.latch.Failed(); err != nil {
		return fault.New(fault.Unavailable, op, "%w", err)
	}
	if r.raft.State() != raft.Leader {
		return r.notLeader(op)
	}
	done := make(chan error, 1)
	var index uint64
	go func() { // ends when raft answers or stops leading
		f := call(stopTimeout)
		err := f.Error()
		index = f.Index()
		done <- err
	}()
	select {
	case err := <-done:
		if errors.Is(err, raft.ErrNotLeader) {
			return r.notLeader(op)
		}
		if err != nil {
			return unknown(fmt.Errorf("%s: %w", op, err))
		}
		return r.settle(ctx, index)
	case <-ctx.Done():
		return unknown(ctx.Err())
	case <-r.latch.Fired():
		return unknown(r.latch.Failed())
	}
}

// settle waits, for a while, until all voters have the entry that changed the configuration. A voter that has not heard
// of a new member refuses it as a candidate, while the new member's longer log refuses the voter: should the leader die
// in that moment, nobody could be elected until it returns.
func (r *Replica) settle(ctx context.Context, index uint64) error {
	limit := time.NewTimer(readWait * r.cfg.Election)
	defer limit.Stop()
	for {
		ok, wait := r.trans.Matched(r.voters(), r.raft.CurrentTerm(), index)
		if ok {
			return nil
		}
		select {
		case <-wait:
		case <-limit.C:
			r.log.Warn("the members changed while one of them does not answer", "index", index)
			return nil // committed all the same
		case <-ctx.Done():
			return nil
		case <-r.latch.Fired():
			return nil
		}
	}
}

// Servers lists the members of the cluster as raft knows them.
func (r *Replica) Servers() []Server {
	term, leading := r.Leading()
	r.lead.mu.Lock()
	since := r.lead.since
	r.lead.mu.Unlock()
	commit := r.raft.CommitIndex()
	var out []Server
	for _, s := range r.servers() {
		a, _ := r.trans.Newest(s.ID)
		m := Server{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter, Contact: a.At}
		if leading && m.ID != r.cfg.Member {
			m.Silent = min(time.Since(m.Contact), time.Since(since))
			m.Lag = min(time.Since(a.Level), time.Since(since))
			if a.Term == term {
				m.Match = a.Match
			}
			m.Behind = commit - min(m.Match, commit)
		}
		out = append(out, m)
	}
	return out
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
