package upload

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/replica/archive"
	"github.com/farrier-project/farrier/coordinator/replica/entry"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

const (
	idSize     = 16
	partHeader = idSize + 4
	lastHeader = partHeader + sha256.Size

	// PartBytes is how many bytes of the image a part has; the last has fewer.
	PartBytes = entry.Full - partHeader

	op = "restore snapshot"
)

// gap is after how many entries without a part an upload is given up.
const gap = 4096

// Receiver follows the uploads in the log. The zero value has seen none. It belongs to one goroutine.
type Receiver struct {
	open *parts
}

// parts are those of an upload that are in the log. It is of one term: another leader knows nothing of it.
type parts struct {
	id          [idSize]byte
	term        uint64
	first, last uint64 // their indexes
	n           uint32
}

// See is told of each entry of commands, parts or a restore, before anything else: it gives up what is open for too long.
func (r *Receiver) See(l *raft.Log) {
	if p := r.open; p != nil && (p.term != l.Term || l.Index > p.last+gap) {
		r.open = nil
	}
}

// Open tells whether parts of an upload are in the log that may become whole: they must stay there.
func (r *Receiver) Open() bool { return r.open != nil }

// Reset forgets what was seen.
func (r *Receiver) Reset() { r.open = nil }

// next tells whether what begins with an upload's id and a number is the next of the open upload.
func (r *Receiver) next(content []byte) bool {
	return r.open != nil && bytes.Equal(r.open.id[:], content[:idSize]) && r.open.n == binary.BigEndian.Uint32(content[idSize:])
}

// Part takes the content of an entry.Part. The refusal is for the one who sent it; the error is fault.Corrupt.
func (r *Receiver) Part(l *raft.Log, content []byte) (refusal, err error) {
	if len(content) < partHeader {
		return nil, fault.New(fault.Corrupt, "take part", "%d bytes", len(content))
	}
	switch {
	case binary.BigEndian.Uint32(content[idSize:]) == 0:
		r.open = &parts{id: [idSize]byte(content), term: l.Term, first: l.Index, last: l.Index, n: 1}
	case r.next(content):
		r.open.last = l.Index
		r.open.n++
	default:
		return cut(), nil
	}
	return nil, nil
}

func cut() error {
	return fault.New(fault.Unavailable, op, "nothing was restored: another leader or another restore came between").WithHelp("restore it again")
}

// Whole is an upload of which all parts are in the log.
type Whole struct {
	Raise command.Command // makes the generation of what is restored
	id    [idSize]byte
	first uint64
	sum   []byte
}

// Last takes the content of an entry.Restore, which ends the upload. The refusal is for the one who sent it; the error is
// fault.Corrupt.
func (r *Receiver) Last(content []byte) (w *Whole, refusal, err error) {
	if len(content) < lastHeader {
		return nil, nil, fault.New(fault.Corrupt, op, "%d bytes", len(content))
	}
	raise, err := command.Decode(content[lastHeader:])
	if err != nil || len(raise) != 1 {
		return nil, nil, fault.New(fault.Corrupt, op, "%d commands: %w", len(raise), err)
	}
	if !r.next(content) {
		return nil, cut(), nil
	}
	w = &Whole{Raise: raise[0], id: r.open.id, first: r.open.first, sum: content[partHeader:lastHeader]}
	r.open = nil
	return w, nil, nil
}

// State reads the uploaded state back from the log, which ends at the index. An error, of fault.Corrupt, means that the log is
// damaged here, since the leader read all of it before.
func (w *Whole) State(cluster string, end uint64, getLog func(index uint64, l *raft.Log) error) (*state.State, error) {
	in := &reader{getLog: getLog, cluster: cluster, at: w.first, end: end, sum: sha256.New()}
	copy(in.next[:], w.id[:])
	s, _, err := archive.ReadImage(bufio.NewReaderSize(in, PartBytes))
	if err == nil {
		_, err = io.Copy(io.Discard, in)
	}
	if err == nil && !bytes.Equal(in.sum.Sum(nil), w.sum) {
		err = errors.New("the parts do not match their hash")
	}
	if err == nil && s.View().Cluster().ID != cluster {
		err = fmt.Errorf("it is of cluster %q", s.View().Cluster().ID)
	}
	if err != nil {
		return nil, fault.New(fault.Corrupt, op, "%w", err)
	}
	return s, nil
}

// reader reads the bytes of an upload's parts back from the log.
type reader struct {
	getLog  func(index uint64, l *raft.Log) error
	cluster string
	next    [partHeader]byte // with what the next part begins
	at, end uint64           // indexes: the next, the last
	sum     hash.Hash
	rest    []byte
}

// Read implements io.Reader.
func (p *reader) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.at > p.end {
			return 0, io.EOF
		}
		var l raft.Log
		if err := p.getLog(p.at, &l); err != nil {
			return 0, fmt.Errorf("entry %d: %w", p.at, err)
		}
		p.at++
		if l.Type != raft.LogCommand {
			continue
		}
		holds, content, err := entry.Open(p.cluster, l.Data)
		if err != nil {
			return 0, fmt.Errorf("entry %d: %w", l.Index, err)
		}
		if holds == entry.Part && bytes.HasPrefix(content, p.next[:]) {
			binary.BigEndian.PutUint32(p.next[idSize:], binary.BigEndian.Uint32(p.next[idSize:])+1)
			p.rest = content[partHeader:]
			p.sum.Write(p.rest)
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}
