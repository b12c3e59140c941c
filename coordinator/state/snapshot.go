package state

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/farrier-project/farrier/coordinator/canon"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/table"
	"github.com/farrier-project/farrier/pkg/fault"
)

// WriteSnapshot writes the whole view: a root, the tables, an end with the hash. Equal views have equal bytes.
// The writer is used from this call only; errors are its own.
func (v *View) WriteSnapshot(w io.Writer) error {
	out := &snapshotWriter{w: bufio.NewWriterSize(w, 1<<18)}
	d := &v.tables
	out.write(d.rootRecord())
	writeTable(out, &d.Agents)
	writeTable(out, &d.Sessions)
	writeTable(out, &d.Rings)
	writeTable(out, &d.Members)
	writeTable(out, &d.JoinTokens)
	writeTable(out, &d.Certificates)
	writeNodes(out, &d.Nodes)
	writeTable(out, &d.Ports)
	writeTable(out, &d.Flows)
	writeTable(out, &d.Inventories)
	writeTable(out, &d.BMCs)
	writeTable(out, &d.Clients)
	writeTable(out, &d.Answers)
	writeTable(out, &d.alarms)
	writeTable(out, &d.events)
	out.write(&command.SnapshotEnd{Records: out.records, Hash: d.hash()})
	if out.err != nil {
		return out.err
	}
	return out.w.Flush()
}

func (d *Tables) rootRecord() *command.Root {
	r := &d.Root
	return &command.Root{
		Index: r.index, Ordinal: r.ordinal, Elapsed: r.Elapsed, ClusterID: r.Cluster.ID, Generation: r.Cluster.Generation,
		Level: r.Cluster.Level, CACert: r.Cluster.CACert, CAKey: r.Cluster.CAKey, Tokens: r.Cluster.Tokens,
		Flows: r.LastFlow, Alarms: r.alarms, Settings: r.Settings, FloorIndex: r.evicted.Index, FloorOrdinal: r.evicted.Ordinal,
	}
}

type snapshotWriter struct {
	w       *bufio.Writer
	buf     []byte
	records uint64
	err     error // the first
}

func writeTable[K, R any](out *snapshotWriter, t *table.Table[K, R]) {
	t.Scan(func(r *R) bool {
		out.write(r)
		return out.err == nil
	})
}

// writeNodes is writeTable for nodes: packed, as most of them are.
func writeNodes(out *snapshotWriter, t *table.Table[node.ID, node.Node]) {
	var w canon.Writer
	rec := &node.Packed{Form: node.PackForm}
	t.ScanPacked(func(n *node.Node, packed string) bool {
		if rec.Data = packed; n != nil {
			node.WritePacked(&w, n)
			rec.Data = string(w.Bytes())
		}
		out.write(rec)
		return out.err == nil
	})
}

func (w *snapshotWriter) write(rec any) {
	if w.err != nil {
		return
	}
	w.buf = command.AppendSnapshotRecord(w.buf[:0], rec)
	var size [binary.MaxVarintLen64]byte
	if _, w.err = w.w.Write(size[:binary.PutUvarint(size[:], uint64(len(w.buf)))]); w.err == nil {
		_, w.err = w.w.Write(w.buf)
	}
	w.records++
}

// ReadSnapshot reads a state that WriteSnapshot wrote, and checks it against its hash. It reads up to the end
// record and not beyond what a buffered reader takes, in a goroutine of its own, which has ended when it returns. Errors are
// fault.Corrupt, or fault.Version for a snapshot of a level above Level.
func ReadSnapshot(r io.Reader) (*State, error) {
	in := &snapshotReader{r: bufio.NewReaderSize(r, 1<<18)}
	to := &snapshotLoader{s: New(), texts: map[string]string{}}
	batches, stop := make(chan batch, 2), make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() { in.read(batches, stop) })
	defer reading.Wait()
	defer close(stop)
	for {
		b := <-batches // the last one has an end or an error
		for _, rec := range b.records {
			if end, ok := rec.(*command.SnapshotEnd); ok {
				return to.finish(end)
			}
			if err := to.load(rec); err != nil {
				return nil, err
			}
			to.records++
		}
		if b.err != nil {
			return nil, b.err
		}
	}
}

// batchSize is how many records go from the reader to the loader at once.
const batchSize = 256

// batch is decoded records, and then what was wrong with the next.
type batch struct {
	records []any
	err     error
}

// snapshotReader decodes records: half of the work, in a goroutine of its own.
type snapshotReader struct {
	r       *bufio.Reader
	buf     []byte
	records uint64
}

// read hands batches on until the end, an error or stop.
func (in *snapshotReader) read(to chan<- batch, stop <-chan struct{}) {
	for last := false; !last; {
		b := batch{records: make([]any, 0, batchSize)}
		for len(b.records) < batchSize && !last {
			var rec any
			if rec, b.err = in.next(); b.err != nil {
				last = true
				break
			}
			_, last = rec.(*command.SnapshotEnd)
			b.records = append(b.records, rec)
			in.records++
		}
		select {
		case to <- b:
		case <-stop:
			return
		}
	}
}

// snapshotLoader puts records into the tables of a new state.
type snapshotLoader struct {
	s       *State
	records uint64
	texts   map[string]string // that many nodes share: names of groups, drivers, agents
}

const readOp = "read snapshot"

func (in *snapshotReader) next() (any, error) {
	size, err := binary.ReadUvarint(in.r)
	if err != nil {
		return nil, cut(in.records, err)
	}
	if size > command.MaxSnapshotRecord {
		return nil, fault.New(fault.Corrupt, readOp, "record %d has %d bytes, more than any record can have", in.records, size)
	}
	if uint64(cap(in.buf)) < size {
		in.buf = make([]byte, size)
	}
	in.buf = in.buf[:size]
	if _, err := io.ReadFull(in.r, in.buf); err != nil {
		return nil, cut(in.records, err)
	}
	rec, err := command.DecodeSnapshotRecord(in.buf)
	if err != nil {
		return nil, fault.Wrap(readOp, err)
	}
	return rec, nil
}

func cut(records uint64, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.New(fault.Corrupt, readOp, "the snapshot ends after %d records, without its end", records).WithHelp("use another snapshot")
	}
	return fault.New(fault.Corrupt, readOp, "record %d: %w", records, err)
}

// load puts a record into its table. The root comes first.
func (in *snapshotLoader) load(rec any) error {
	s := in.s
	root, isRoot := rec.(*command.Root)
	if isRoot != (in.records == 0) {
		return fault.New(fault.Corrupt, readOp, "record %d is out of place", in.records)
	}
	switch r := rec.(type) {
	case *command.Root:
		if r.Level > Level {
			return fault.New(fault.Version, readOp, "the snapshot is of level %d, this member computes %d", r.Level, Level).
				WithHelp("install the version that the others run")
		}
		s.setRoot(root)
	case *Agent:
		load(s, &s.Agents, r)
	case *Session:
		load(s, &s.Sessions, r)
	case *Ring:
		load(s, &s.Rings, r)
	case *command.Member:
		load(s, &s.Members, r)
	case *JoinToken:
		load(s, &s.JoinTokens, r)
	case *Certificate:
		load(s, &s.Certificates, r)
	case *node.Packed:
		return in.loadNode(r)
	case *node.Node:
		load(s, &s.Nodes, r)
		s.packAtRest(r.ID)
	case *node.Port:
		load(s, &s.Ports, r)
	case *flow.Flow:
		load(s, &s.Flows, r)
	case *Inventory:
		load(s, &s.Inventories, r)
	case *BMCSessions:
		load(s, &s.BMCs, r)
	case *Client:
		load(s, &s.Clients, r)
	case *Answer:
		load(s, &s.Answers, r)
	case *Alarm:
		load(s, &s.alarms, r)
	case *event:
		load(s, &s.events, r)
	}
	return nil
}

// load puts a record into a table.
func load[K, R any](s *State, t *table.Table[K, R], r *R) { t.Load(s.Log.Hasher(), r) }

// loadNode puts a packed node into its table, and leaves it packed if it is at rest.
func (in *snapshotLoader) loadNode(p *node.Packed) error {
	if p.Form == 0 || p.Form > node.PackForm {
		return fault.New(fault.Version, readOp, "record %d is a node in form %d, this member reads %d", in.records, p.Form, node.PackForm).
			WithHelp("install the version that the others run")
	}
	n, body, ok := node.UnpackAwake(p.Data)
	if !ok {
		return fault.New(fault.Corrupt, readOp, "record %d is no node", in.records)
	}
	if !n.Provision.Known() || !n.TargetProvision.Known() {
		return fault.New(fault.Version, readOp, "node %s has provision state %d or target %d, which this member does not know", n.ID, n.Provision, n.TargetProvision).
			WithHelp("install the version that the others run")
	}
	t := &in.s.Nodes
	if t.Has(n.ID) {
		return fault.New(fault.Corrupt, readOp, "record %d is a second node %s", in.records, n.ID)
	}
	// The indexes keep texts: they must not keep the packed bytes alive, which the next change replaces.
	n.ID, n.Name = node.ID(strings.Clone(string(n.ID))), strings.Clone(n.Name)
	n.PrevOwner, n.Lock.Session = strings.Clone(n.PrevOwner), strings.Clone(n.Lock.Session)
	for _, few := range [...]*string{&n.Group, &n.Driver, &n.Owner} {
		*few = in.text(*few)
	}
	t.LoadPacked(n, packedNode(in.s.Log.Hasher(), p.Data, body), (*node.Node).AtRest)
	return nil
}

// text is t, once for all records.
func (in *snapshotLoader) text(t string) string {
	known, ok := in.texts[t]
	if !ok {
		known = strings.Clone(t)
		in.texts[known] = known
	}
	return known
}

func (s *State) setRoot(r *command.Root) {
	s.Root = Root{
		index: r.Index, ordinal: r.Ordinal, Elapsed: r.Elapsed, Settings: r.Settings, LastFlow: r.Flows, alarms: r.Alarms,
		evicted: Position{r.FloorIndex, r.FloorOrdinal},
		Cluster: Cluster{
			ID: r.ClusterID, Generation: r.Generation, Level: r.Level, CACert: r.CACert, CAKey: r.CAKey, Tokens: r.Tokens,
		},
	}
}

func (in *snapshotLoader) finish(end *command.SnapshotEnd) (*State, error) {
	if end.Records != in.records {
		return nil, fault.New(fault.Corrupt, readOp, "the snapshot has %d records, and says %d", in.records, end.Records)
	}
	if got := in.s.Hash(); got != end.Hash {
		return nil, fault.New(fault.Corrupt, readOp, "the records have hash %x, the snapshot says %x", got, end.Hash).WithHelp("use another snapshot")
	}
	return in.s, nil
}
