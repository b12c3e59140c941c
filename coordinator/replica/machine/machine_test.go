package machine_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/apply"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/replica/archive"
	"github.com/farrier-project/farrier/coordinator/replica/ballot"
	"github.com/farrier-project/farrier/coordinator/replica/entry"
	"github.com/farrier-project/farrier/coordinator/replica/fatal"
	"github.com/farrier-project/farrier/coordinator/replica/machine"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

const cluster = "0123456789abcdef"

var (
	header = command.Header{Cluster: cluster, At: time.Unix(1790000000, 0), Actor: "operator test", Level: 1}                                       // read-only
	first  = command.Command{Header: header, Body: command.InitCluster{ClusterID: cluster, CACert: []byte{1}, Settings: command.DefaultSettings()}} // read-only
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open makes a machine whose log is read by getLog.
func open(t *testing.T, getLog func(uint64, *raft.Log) error) (*machine.Machine, *fatal.Latch) {
	l := fatal.NewLatch(slog.New(slog.DiscardHandler), func() {})
	return machine.New(machine.Options{Cluster: cluster, File: "raft.db", Latch: l, GetLog: getLog, Applied: func() {}, Checked: func(ballot.Checkpoint) {}, Roster: func() {}}), l
}

func view(m *machine.Machine) *state.View {
	v, _ := m.Newest()
	return v
}

func commands(t *testing.T, index uint64, c ...command.Command) *raft.Log {
	t.Helper()
	data, err := command.Encode(c...)
	must(t, err)
	return &raft.Log{Index: index, Term: 2, Type: raft.LogCommand, Data: entry.Seal(cluster, entry.Commands, data)}
}

func putMember(id string) command.Command {
	return command.Command{Header: header, Body: command.PutMember{Member: command.Member{ID: id, APIAddress: "a", Level: 1}}}
}

// TestApply: each command has its result, those who wait for an index are woken, and a view stays as it was.
func TestApply(t *testing.T) {
	var told, rosters int
	m := machine.New(machine.Options{
		Cluster: cluster, Latch: fatal.NewLatch(slog.New(slog.DiscardHandler), func() {}),
		Applied: func() { told++ }, Checked: func(ballot.Checkpoint) { t.Error("checked before 1,000") }, Roster: func() { rosters++ },
	})
	_, wait := m.Reached(3)
	out := m.ApplyBatch([]*raft.Log{
		commands(t, 1, first), {Index: 2, Type: raft.LogConfiguration}, commands(t, 3, putMember("m1"), putMember("m2")),
	})
	if r, ok := out[2].([]command.Result); !ok || len(r) != 2 || r[0].Err != nil || r[1].Err != nil || out[1] != nil {
		t.Fatalf("the answers are %v", out)
	}
	select {
	case <-wait:
	default:
		t.Error("who waited was not woken")
	}
	if ok, _ := m.Reached(3); !ok || m.Index() != 3 || told != 1 {
		t.Errorf("applied %d, told %d times", m.Index(), told)
	}
	before := view(m)
	m.Apply(commands(t, 4, putMember("m3")))
	if _, ok := before.Member("m3"); ok {
		t.Error("a view changed")
	}
	if _, ok := view(m).Member("m3"); !ok {
		t.Error("the newest view lacks the newest entry")
	}
	was := rosters
	m.Apply(commands(t, 5, command.Command{Header: header, Body: command.RemoveMember{ID: "m3"}}))
	m.Apply(commands(t, 6, putMember("m4")))
	if rosters > was+1 {
		t.Errorf("the roster moved %d times", rosters-was)
	}
}

// TestCheckpoints: the state before the first entry past a multiple, whatever that entry is, and once.
func TestCheckpoints(t *testing.T) {
	var got []ballot.Checkpoint
	m := machine.New(machine.Options{
		Cluster: cluster, Latch: fatal.NewLatch(slog.New(slog.DiscardHandler), func() {}),
		Applied: func() {}, Checked: func(c ballot.Checkpoint) { got = append(got, c) }, Roster: func() {},
	})
	m.Apply(commands(t, 1, first))
	want := view(m).Hash()
	for _, i := range []uint64{machine.HashEvery, machine.HashEvery + 3, machine.HashEvery + 4, 3*machine.HashEvery + 1} {
		m.Apply(commands(t, i, putMember("m")))
		if i == machine.HashEvery {
			want = view(m).Hash()
		}
	}
	if len(got) != 2 || got[0] != (ballot.Checkpoint{Index: machine.HashEvery, Hash: want}) || got[1].Index != 3*machine.HashEvery {
		t.Errorf("checked %v", got)
	}
}

// TestDamagedEntryStopsTheMember: nothing of it or past it is applied.
func TestDamagedEntryStopsTheMember(t *testing.T) {
	for name, c := range map[string]struct {
		data []byte
		kind fault.Kind
	}{
		"damaged":            {[]byte("not an entry"), fault.Version},
		"of another cluster": {entry.Seal("another", entry.Commands), fault.Corrupt},
		"of a newer release": {entry.Seal(cluster, entry.Commands, []byte{0x0a, 0x06, 0x4a, 0x04, 0xc2, 0xbb, 0x01, 0x00}), fault.Version},
	} {
		m, latch := open(t, nil)
		m.Apply(commands(t, 1, first))
		before := view(m).Hash()
		out := m.ApplyBatch([]*raft.Log{{Index: 2, Type: raft.LogCommand, Data: c.data}, commands(t, 3, putMember("m1"))})
		m.Apply(commands(t, 4, putMember("m2")))
		if err := latch.Failed(); !fault.Is(err, c.kind) || !strings.Contains(err.Error(), "entry 2") {
			t.Errorf("%s: %v", name, err)
		}
		if out[0] != nil || out[1] != nil || m.Index() != 1 || view(m).Hash() != before {
			t.Errorf("%s: applied %d, answered %v", name, m.Index(), out)
		}
		if _, err := m.Snapshot(); err == nil {
			t.Errorf("%s: a snapshot of a member that must stop", name)
		}
	}
}

// sink is a snapshot in memory.
type sink struct {
	bytes.Buffer
	closed, cancelled bool
}

func (*sink) ID() string { return "s" }
func (s *sink) Close() error {
	s.closed = true
	return nil
}
func (s *sink) Cancel() error {
	s.cancelled = true
	return nil
}

// TestSnapshotAndRestore: the state is another member's, or it stays as it was.
func TestSnapshotAndRestore(t *testing.T) {
	from, _ := open(t, nil)
	from.Apply(commands(t, 1, first))
	from.Apply(commands(t, 2, putMember("m1")))
	frozen, err := from.Snapshot()
	must(t, err)
	from.Apply(commands(t, 3, putMember("m2"))) // it is of before
	var s sink
	must(t, frozen.Persist(&s))
	if !s.closed || s.cancelled {
		t.Error("the snapshot is not in place")
	}
	to, _ := open(t, nil)
	must(t, to.Restore(io.NopCloser(bytes.NewReader(s.Bytes()))))
	_, one := view(to).Member("m1")
	_, two := view(to).Member("m2")
	if !one || two || to.Index() != 2 {
		t.Errorf("m1 %v, m2 %v, applied %d", one, two, to.Index())
	}
	was := view(to).Hash()
	for name, in := range map[string][]byte{"cut": s.Bytes()[:s.Len()/2], "empty": nil, "of another hash": append(make([]byte, 24), s.Bytes()[24:]...)} {
		if err := to.Restore(io.NopCloser(bytes.NewReader(in))); !fault.Is(err, fault.Corrupt) || to.Failed() != err || view(to).Hash() != was {
			t.Errorf("%s: %v, kept %v", name, err, to.Failed())
		}
	}
	other := machine.New(machine.Options{Cluster: "another", Latch: fatal.NewLatch(slog.New(slog.DiscardHandler), func() {})})
	if err := other.Restore(io.NopCloser(bytes.NewReader(s.Bytes()))); !fault.Is(err, fault.Corrupt) || other.Index() != 0 {
		t.Errorf("in another cluster: %v", err)
	}
}

// TestUpload: what does not follow upon the parts before it changes nothing, and says so.
func TestUpload(t *testing.T) {
	source := apply.New()
	source.Apply(1, first)
	var data bytes.Buffer
	must(t, archive.Image{View: source.View(), Applied: 1}.Write(&data))
	sum := sha256.Sum256(data.Bytes())
	raise, err := command.Encode(command.Command{Header: header, Body: command.NewGeneration{Reason: "test"}})
	must(t, err)
	part := func(id byte, n uint32, b []byte) []byte {
		head := binary.BigEndian.AppendUint32(bytes.Repeat([]byte{id}, 16), n)
		return entry.Seal(cluster, entry.Part, head, b)
	}
	done := func(id byte, n uint32, sum [32]byte) []byte {
		head := binary.BigEndian.AppendUint32(bytes.Repeat([]byte{id}, 16), n)
		return entry.Seal(cluster, entry.Restore, head, sum[:], raise)
	}
	barrier := entry.Seal(cluster, entry.Commands)
	half := data.Len() / 2
	one, two := data.Bytes()[:half], data.Bytes()[half:]
	type logged struct {
		index, term uint64
		data        []byte
	}
	for _, c := range []struct {
		name     string
		entries  []logged
		restored bool
		stops    bool
	}{
		{"in order", []logged{{5, 2, part(1, 0, one)}, {6, 2, barrier}, {9, 2, part(1, 1, two)}, {10, 2, done(1, 2, sum)}}, true, false},
		{"a part is missing", []logged{{5, 2, part(1, 0, one)}, {6, 2, done(1, 2, sum)}}, false, false},
		{"a part comes twice", []logged{{5, 2, part(1, 0, one)}, {6, 2, part(1, 1, two)}, {7, 2, part(1, 1, two)}, {8, 2, done(1, 2, sum)}}, true, false},
		{"another leader came between", []logged{{5, 2, part(1, 0, one)}, {6, 3, barrier}, {7, 3, part(1, 1, two)}, {8, 3, done(1, 2, sum)}}, false, false},
		{"another restore came between", []logged{{5, 2, part(1, 0, one)}, {6, 2, part(2, 0, one)}, {7, 2, part(1, 1, two)}, {8, 2, done(1, 2, sum)}}, false, false},
		{"it was given up", []logged{{5, 2, part(1, 0, one)}, {6 + 4096, 2, part(1, 1, two)}, {7 + 4096, 2, done(1, 2, sum)}}, false, false},
		{"nothing was sent", []logged{{5, 2, done(1, 0, sum)}}, false, false},
		{"twice", []logged{{5, 2, part(1, 0, data.Bytes())}, {6, 2, done(1, 1, sum)}, {7, 2, done(1, 1, sum)}}, true, false},
		{"the parts are damaged", []logged{{5, 2, part(1, 0, one)}, {6, 2, part(1, 1, one)}, {7, 2, done(1, 2, sum)}}, false, true},
		{"another hash", []logged{{5, 2, part(1, 0, data.Bytes())}, {6, 2, done(1, 1, [32]byte{})}}, false, true},
	} {
		logs := map[uint64]*raft.Log{}
		f, latch := open(t, func(i uint64, l *raft.Log) error {
			if logs[i] == nil {
				*l = raft.Log{Index: i, Type: raft.LogNoop}
				return nil
			}
			*l = *logs[i]
			return nil
		})
		f.Apply(commands(t, 1, first))
		for _, e := range c.entries {
			logs[e.index] = &raft.Log{Index: e.index, Term: e.term, Type: raft.LogCommand, Data: e.data}
			f.Apply(logs[e.index])
			if _, err := f.Snapshot(); e.index == 5 && entry.Kind(e.data[0]) == entry.Part && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
				t.Errorf("%s: a snapshot between the parts: %v", c.name, err)
			}
		}
		if got := view(f).Cluster().Generation == 2; got != c.restored {
			t.Errorf("%s: restored %v", c.name, got)
		}
		if err := latch.Failed(); (err != nil) != c.stops {
			t.Errorf("%s: the member stops: %v", c.name, err)
		}
		if last := c.entries[len(c.entries)-1].index; !c.stops && f.Index() != last {
			t.Errorf("%s: applied %d, not %d", c.name, f.Index(), last)
		}
	}
}
