package replica

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
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
	"github.com/farrier-project/farrier/pkg/fault"
)

// An archive is restored through the log: its state goes in as parts, which change nothing, and then one entry puts it in
// place, on every member at the same index. So it is there or not, as any other entry, whoever dies when; raft's own Restore
// changes the leader before any other member, and a leader that dies in between is left with a state and an index that
// nobody else has. The price is that the log holds the archive until the next snapshot.
//
// A part is the upload's id, the part's number and its bytes. The last entry is the id, the number of parts, the SHA-256 of
// their bytes, and the command that raises the generation.
const (
	uploadID   = 16
	partHeader = uploadID + 4
	partBytes  = maxEntryBytes - partHeader
	doneHeader = partHeader + sha256.Size
)

// uploadGap is after how many entries without a part an upload is given up.
const uploadGap = 4096

// upload is an archive of which some parts are in the log. It is of one term: another leader knows nothing of it.
type upload struct {
	id          [uploadID]byte
	term        uint64
	first, last uint64 // indexes of parts
	parts       uint32
}

// at is the upload as it is when the entry comes: nil once it was given up. All members see the same entries, and so agree.
func (u *upload) at(l *raft.Log) *upload {
	if u != nil && (u.term != l.Term || l.Index > u.last+uploadGap) {
		return nil
	}
	return u
}

// is tells whether what follows an upload's id and a number is the next of this upload.
func (u *upload) is(id []byte, parts uint32) bool {
	return u != nil && bytes.Equal(u.id[:], id) && u.parts == parts
}

// takePart remembers where an upload's parts are.
func (f *fsm) takePart(l *raft.Log, content []byte) (command.Result, error) {
	if len(content) < partHeader {
		return command.Result{}, fault.New(fault.Corrupt, "take part", "%d bytes", len(content))
	}
	id, number := content[:uploadID], binary.BigEndian.Uint32(content[uploadID:])
	switch {
	case number == 0:
		f.upload = &upload{id: [uploadID]byte(id), term: l.Term, first: l.Index, last: l.Index, parts: 1}
	case f.upload.is(id, number):
		f.upload.last, f.upload.parts = l.Index, number+1
	default:
		f.place(f.state, l.Index)
		return cutUpload(), nil
	}
	f.place(f.state, l.Index)
	return command.Result{}, nil
}

func cutUpload() command.Result {
	return command.Result{Err: fault.New(fault.Unavailable, "restore snapshot", "nothing was restored: another leader or another restore came between").
		WithHelp("restore it again")}
}

// restore puts the uploaded state in place, under a generation above its own and that of the state it replaces. A refusal
// changes nothing; an error means that the log is damaged here, since the leader read all of it before.
func (f *fsm) restore(l *raft.Log, content []byte) (command.Result, error) {
	u := f.upload
	if len(content) < doneHeader {
		return command.Result{}, fault.New(fault.Corrupt, "restore snapshot", "%d bytes", len(content))
	}
	raise, err := command.Decode(content[doneHeader:])
	if err != nil || len(raise) != 1 {
		return command.Result{}, fault.New(fault.Corrupt, "restore snapshot", "%d commands: %w", len(raise), err)
	}
	now, applied := f.newest()
	floor := now.Cluster().Generation
	if !u.is(content[:uploadID], binary.BigEndian.Uint32(content[uploadID:])) {
		f.place(f.state, l.Index)
		return cutUpload(), nil
	}
	f.upload = nil
	parts := &partReader{getLog: f.getLog, cluster: f.cluster, at: u.first, end: applied, sum: sha256.New()}
	copy(parts.next[:], u.id[:])
	s, _, err := archive.ReadImage(bufio.NewReaderSize(parts, partBytes))
	if err == nil {
		_, err = io.Copy(io.Discard, parts)
	}
	if err == nil && !bytes.Equal(parts.sum.Sum(nil), content[partHeader:doneHeader]) {
		err = errors.New("the parts do not match their hash")
	}
	if err == nil && s.View().Cluster().ID != f.cluster {
		err = fmt.Errorf("it is of cluster %q", s.View().Cluster().ID)
	}
	if err != nil {
		return command.Result{}, fault.New(fault.Corrupt, "restore snapshot", "%w", err)
	}
	s.KeepMembership(f.state) // only this goroutine changes it
	floor = max(floor, s.View().Cluster().Generation)
	for s.View().Cluster().Generation <= floor {
		raise[0].Header.Level = s.View().Cluster().Level
		if res := s.Apply(l.Index, raise[0]); res.Err != nil { // no generation is left
			f.place(f.state, l.Index)
			return res, nil
		}
	}
	f.place(s, l.Index)
	return command.Result{}, nil
}

// partReader reads the bytes of an upload's parts back from the log.
type partReader struct {
	getLog  func(index uint64, l *raft.Log) error
	cluster string
	next    [partHeader]byte // with what the next part begins
	at, end uint64           // indexes: the next, the last
	sum     hash.Hash
	rest    []byte
}

// Read implements io.Reader.
func (p *partReader) Read(b []byte) (int, error) {
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
			binary.BigEndian.PutUint32(p.next[uploadID:], binary.BigEndian.Uint32(p.next[uploadID:])+1)
			p.rest = content[partHeader:]
			p.sum.Write(p.rest)
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// SaveSnapshot writes an archive of the state after the newest entry applied here to w. For all that was committed so far, wait
// for ReadIndex first.
func (r *Replica) SaveSnapshot(ctx context.Context, w io.Writer) (archive.Header, error) {
	v, applied := r.fsm.newest()
	return archive.Write(ctx, w, archive.Image{View: v, Applied: applied}, r.cfg.Clock.Now())
}

// RestoreSnapshot replaces the state of the whole cluster by an archive's, but for who belongs to it (state.KeepMembership). On
// the leader only. The archive is verified as a whole before anything changes, and must be of this cluster. The restored state
// has a higher generation than both the archive and the state that it replaces, in the same step: all sessions end, and no lock
// token is ever used again. With fault.UnknownOutcome it may have happened; after any other error it has not.
func (r *Replica) RestoreSnapshot(ctx context.Context, in io.Reader) (archive.Header, error) {
	const op = "restore snapshot"
	if _, ok := r.Leading(); !ok {
		return archive.Header{}, r.notLeader(op)
	}
	spool, err := archive.NewSpool(r.cfg.Dir)
	if err != nil {
		return archive.Header{}, fmt.Errorf("%s: %w", op, err)
	}
	defer spool.Close()
	a, s, err := archive.Read(ctx, in, r.cfg.MaxArchive, spool)
	if spool.Failed() != nil {
		return archive.Header{}, fmt.Errorf("%s: %w", op, spool.Failed())
	}
	if err != nil {
		return archive.Header{}, err
	}
	if id := s.View().Cluster().ID; a.Cluster != r.cfg.Cluster || id != r.cfg.Cluster {
		return archive.Header{}, fault.New(fault.Invalid, op, "the archive is of cluster %q, this is %q", a.Cluster, r.cfg.Cluster).
			WithHelp("a cluster whose coordinators are all lost is made anew by `farrier-coordinator init --from-archive FILE --key-file KEYS`")
	}
	head := make([]byte, partHeader)
	rand.Read(head[:uploadID]) // never fails: crypto/rand ends the process instead
	verified, err := spool.Rewind()
	if err != nil {
		return archive.Header{}, fmt.Errorf("%s: %w", op, err)
	}
	parts, sum, err := r.sendParts(ctx, head[:uploadID], verified)
	if err != nil {
		return archive.Header{}, notRestored(err)
	}
	binary.BigEndian.PutUint32(head[uploadID:], parts)
	raise, err := command.Encode(r.newGeneration())
	if err != nil {
		return archive.Header{}, err
	}
	answer, err := r.submit(ctx, entry.Restore, append(append(head, sum...), raise...), 1)
	if err == nil {
		err = answer.results[0].Err
	}
	if err != nil {
		return archive.Header{}, fault.Wrap(op, err)
	}
	r.log.Warn("the state was restored from an archive", "index", a.Index, "generation", r.View().Cluster().Generation)
	return a, nil
}

// sendParts puts the parts of an upload in the log, one after the other.
func (r *Replica) sendParts(ctx context.Context, id []byte, in io.Reader) (parts uint32, sum []byte, err error) {
	h := sha256.New()
	for {
		part := make([]byte, partHeader+partBytes) // it belongs to the log from then on
		n, err := io.ReadFull(in, part[partHeader:])
		if errors.Is(err, io.EOF) {
			return parts, h.Sum(nil), nil
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, nil, err
		}
		copy(part, id)
		binary.BigEndian.PutUint32(part[uploadID:], parts)
		part = part[:partHeader+n]
		h.Write(part[partHeader:])
		answer, err := r.submit(ctx, entry.Part, part, 1)
		if err == nil {
			err = answer.results[0].Err
		}
		if err != nil {
			return 0, nil, err
		}
		parts++
	}
}

// notRestored is the error when a part did not get through: without the last entry, those that did change nothing.
func notRestored(err error) error {
	if fault.Is(err, fault.UnknownOutcome) {
		return fault.New(fault.Unavailable, "restore snapshot", "nothing was restored: %w", err).WithHelp("restore it again")
	}
	return fault.Wrap("restore snapshot", err)
}

// newGeneration is the command that goes with a restore.
func (r *Replica) newGeneration() command.Command {
	c := command.Command{
		Header: command.Header{Cluster: r.cfg.Cluster, At: r.cfg.Clock.Now(), Actor: "coordinator " + r.cfg.Member, Level: r.View().Cluster().Level},
		Body:   command.NewGeneration{Reason: "a snapshot was restored"},
	}
	rand.Read(c.Header.Seed[:]) // as above
	return c
}
