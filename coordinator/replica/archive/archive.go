package archive

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

const (
	magic     = "farrier archive 1\n"
	chunk     = 64 << 10
	maxHeader = 64 << 10
)

// DefaultMax is how large an archive may be, in bytes, where nobody says otherwise.
const DefaultMax = 8 << 30

// Header describes an archive.
type Header struct {
	Cluster    string    `json:"cluster"`
	Index      uint64    `json:"index"`
	Generation uint16    `json:"generation"`
	Level      uint32    `json:"level"`
	At         time.Time `json:"at"` // for people
}

// Write writes an archive of the image to w, until ctx ends.
func Write(ctx context.Context, w io.Writer, z Image, at time.Time) (Header, error) {
	c := z.View.Cluster()
	a := Header{Cluster: c.ID, Index: z.Applied, Generation: c.Generation, Level: c.Level, At: at.UTC()}
	head, err := json.Marshal(a)
	if err != nil {
		return Header{}, err
	}
	sum := sha256.New()
	out := io.MultiWriter(w, sum)
	lead := append([]byte(magic), binary.BigEndian.AppendUint32(nil, uint32(len(head)))...)
	if _, err := out.Write(append(lead, head...)); err != nil {
		return Header{}, fmt.Errorf("write archive: %w", err)
	}
	buffered := bufio.NewWriterSize(chunker{ctx, out}, chunk)
	err = z.Write(buffered)
	if err = errors.Join(err, buffered.Flush()); err != nil {
		return Header{}, fmt.Errorf("write archive: %w", err)
	}
	if _, err := out.Write(make([]byte, 4)); err != nil {
		return Header{}, fmt.Errorf("write archive: %w", err)
	}
	if _, err := w.Write(sum.Sum(nil)); err != nil {
		return Header{}, fmt.Errorf("write archive: %w", err)
	}
	return a, nil
}

// chunker writes each Write as chunks with lengths.
type chunker struct {
	ctx context.Context
	out io.Writer
}

func (c chunker) Write(p []byte) (int, error) {
	for n := 0; n < len(p); {
		if err := c.ctx.Err(); err != nil {
			return n, err
		}
		part := p[n:min(len(p), n+chunk)]
		if _, err := c.out.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part)))); err != nil {
			return n, err
		}
		if _, err := c.out.Write(part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return len(p), nil
}

// Read reads and verifies an archive of at most limit bytes, and copies its image as it is to copied. Errors are
// fault.Corrupt and fault.TooLarge.
func Read(ctx context.Context, in io.Reader, limit int64, copied io.Writer) (Header, *state.State, error) {
	src := &io.LimitedReader{R: in, N: limit}
	bad := func(format string, args ...any) (Header, *state.State, error) {
		if src.N <= 0 {
			return Header{}, nil, fault.New(fault.TooLarge, "read archive", "it has more than %d bytes", limit)
		}
		return Header{}, nil, fault.New(fault.Corrupt, "read archive", format, args...).WithHelp("take another archive: this one is damaged or not whole")
	}
	sum := sha256.New()
	t := io.TeeReader(src, sum)
	first := make([]byte, len(magic))
	if _, err := io.ReadFull(t, first); err != nil || string(first) != magic {
		return bad("it is not an archive")
	}
	var n [4]byte
	if _, err := io.ReadFull(t, n[:]); err != nil || binary.BigEndian.Uint32(n[:]) > maxHeader {
		return bad("it has no header")
	}
	head := make([]byte, binary.BigEndian.Uint32(n[:]))
	var a Header
	if _, err := io.ReadFull(t, head); err != nil || json.Unmarshal(head, &a) != nil {
		return bad("its header cannot be read")
	}
	chunks := io.TeeReader(&unchunker{ctx: ctx, in: t}, copied)
	s, _, err := ReadImage(bufio.NewReaderSize(chunks, chunk))
	if err == nil {
		_, err = io.Copy(io.Discard, chunks) // to the end mark
	}
	if err != nil {
		return bad("%w", err)
	}
	if err := checkSum(in, sum); err != nil {
		return bad("%w", err)
	}
	return a, s, nil
}

func checkSum(in io.Reader, sum hash.Hash) error {
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(in, want); err != nil {
		return fmt.Errorf("its checksum is missing: %w", err)
	}
	if !bytes.Equal(want, sum.Sum(nil)) {
		return errors.New("it does not match its checksum")
	}
	return nil
}

// unchunker reads what chunker wrote, up to the zero length.
type unchunker struct {
	ctx  context.Context
	in   io.Reader
	left uint32
	end  bool
}

func (u *unchunker) Read(p []byte) (int, error) {
	if u.end {
		return 0, io.EOF
	}
	if u.left == 0 {
		if err := u.ctx.Err(); err != nil {
			return 0, err
		}
		var n [4]byte
		if _, err := io.ReadFull(u.in, n[:]); err != nil {
			return 0, fmt.Errorf("it is cut short: %w", err)
		}
		if u.left = binary.BigEndian.Uint32(n[:]); u.left == 0 {
			u.end = true
			return 0, io.EOF
		}
		if u.left > chunk {
			return 0, fmt.Errorf("a chunk of %d bytes", u.left)
		}
	}
	n, err := u.in.Read(p[:min(len(p), int(u.left))])
	u.left -= uint32(n)
	if errors.Is(err, io.EOF) && n == 0 {
		err = io.ErrUnexpectedEOF
	} else if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}
