package steps

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/ramdisk-agent/disk"
)

// Image formats. The agent names the format; none is guessed.
const (
	FormatRaw     = "raw"
	FormatRawGzip = "raw.gz"
	FormatRawZstd = "raw.zst"
)

const (
	minChunk = 64 << 10
	maxChunk = 16 * mib
	maxParts = 1 << 22 // chunks: 16 TiB of 4 MiB
)

// Manifest describes an image's content, decompressed, in chunks. An empty digest is a chunk of zeros.
type Manifest struct {
	SHA256      string // of the file, hex
	Format      string
	FileSize    int64
	ContentSize int64
	ChunkSize   int64
	Chunks      [][]byte // SHA-256 of each chunk
}

// check refuses a manifest that contradicts itself or the order.
func (m *Manifest) check(sha, format string) error {
	bad := func(text string, args ...any) error {
		return fault.New(fault.Corrupt, "check manifest", text, args...).
			WithHelp("the agent's image cache is inconsistent: remove the image there, then deploy again")
	}
	if b, err := hex.DecodeString(sha); err != nil || len(b) != sha256.Size {
		return fault.New(fault.Invalid, "write image", "sha256 %q is not a SHA-256 in hexadecimal", sha).
			WithDetail(&fault.FieldDetail{Field: "sha256"})
	}
	switch m.Format {
	case FormatRaw, FormatRawGzip, FormatRawZstd:
	default:
		return fault.New(fault.Unsupported, "write image", "format %q is not raw, raw.gz or raw.zst", m.Format)
	}
	want := (m.ContentSize + m.ChunkSize - 1) / max(m.ChunkSize, 1)
	switch {
	case m.SHA256 != sha:
		return bad("it is of %s, not of %s", m.SHA256, sha)
	case format != "" && m.Format != format:
		return bad("its format is %s, not %s", m.Format, format)
	case m.ChunkSize < minChunk || m.ChunkSize > maxChunk || m.ChunkSize%minChunk != 0:
		return bad("chunks of %d bytes", m.ChunkSize)
	case m.ContentSize <= 0 || m.FileSize <= 0 || want > maxParts || want != int64(len(m.Chunks)):
		return bad("%d chunks for %d bytes", len(m.Chunks), m.ContentSize)
	case m.Format == FormatRaw && m.FileSize != m.ContentSize:
		return bad("a raw file of %d bytes holds %d", m.FileSize, m.ContentSize)
	}
	for i, c := range m.Chunks {
		if len(c) != 0 && len(c) != sha256.Size {
			return bad("digest %d has %d bytes", i, len(c))
		}
	}
	return nil
}

// chunk is where chunk i lies.
func (m *Manifest) chunk(i int) (off, n int64) {
	off = int64(i) * m.ChunkSize
	return off, min(m.ChunkSize, m.ContentSize-off)
}

func (m *Manifest) zero(i int) bool { return len(m.Chunks[i]) == 0 }

// matches tells whether p is chunk i.
func (m *Manifest) matches(i int, p []byte) bool {
	if m.zero(i) {
		return disk.AllZero(p)
	}
	sum := sha256.Sum256(p)
	return bytes.Equal(sum[:], m.Chunks[i])
}
