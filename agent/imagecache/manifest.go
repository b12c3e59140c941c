package imagecache

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"

	"github.com/farrier-project/farrier/pkg/fault"
)

// ChunkSize of a manifest, in bytes.
const ChunkSize = 4 << 20

const (
	maxZstdWindow   = 128 << 20 // bytes of memory that a zstd image may ask of its reader
	maxManifestFile = 64 << 20  // bytes
)

// Format is how an image's file holds its content. It is given, never guessed.
type Format string

// The formats.
const (
	Raw     Format = "raw"
	RawGzip Format = "raw.gz"
	RawZstd Format = "raw.zst"
)

func (f Format) check() error {
	switch f {
	case Raw, RawGzip, RawZstd:
		return nil
	}
	return fault.New(fault.Invalid, "read image", "format %.32q is unknown", string(f)).
		WithHelp("use raw, raw.gz or raw.zst; convert others first, as by qemu-img convert -O raw").WithDetail(&fault.FieldDetail{Field: "image.format"})
}

// Manifest describes an image's content, decompressed.
type Manifest struct {
	SHA256        string   `json:"sha256"` // of the file
	Format        Format   `json:"format"`
	FileSize      uint64   `json:"file_size"`    // bytes
	ContentSize   uint64   `json:"content_size"` // bytes
	ChunkSize     uint32   `json:"chunk_size"`   // bytes; the last chunk may be shorter
	Chunks        [][]byte `json:"chunks"`       // SHA-256 of each; empty: the chunk is all zeros
	ContentSHA256 string   `json:"content_sha256"`
}

// buildManifest reads the file once, through its decompressor.
func buildManifest(ctx context.Context, path string, src Source, maxContent int64) (*Manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "read image", "%w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fault.New(fault.Unavailable, "read image", "%w", err)
	}
	content, whole, stop, err := decompress(f, src.Format)
	if err != nil {
		return nil, notOfFormat(src.Format, err)
	}
	defer stop()
	m := &Manifest{SHA256: src.SHA256, Format: src.Format, FileSize: uint64(st.Size()), ChunkSize: ChunkSize}
	buf := make([]byte, ChunkSize)
	for {
		if ctx.Err() != nil {
			return nil, fault.New(fault.Aborted, "read image", "%w", ctx.Err())
		}
		n, err := io.ReadFull(content, buf)
		if n > 0 {
			m.ContentSize += uint64(n)
			if m.ContentSize > uint64(maxContent) {
				return nil, fault.New(fault.TooLarge, "read image", "the content is more than %d bytes", maxContent).
					WithHelp("raise the agent's limit for image contents, if the image is what it should be")
			}
			m.Chunks = append(m.Chunks, chunkSum(buf[:n]))
			if whole != nil {
				whole.Write(buf[:n])
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && src.Format == Raw {
			break
		}
		if errors.Is(err, io.ErrUnexpectedEOF) && n < len(buf) {
			// ReadFull says so for a short last chunk, the decompressor for a truncated file: ask it again.
			if _, err = content.Read(buf[:1]); errors.Is(err, io.EOF) {
				break
			}
		}
		if err != nil {
			return nil, notOfFormat(src.Format, err)
		}
	}
	m.ContentSHA256 = m.SHA256
	if whole != nil {
		m.ContentSHA256 = hex.EncodeToString(whole.Sum(nil))
	}
	return m, nil
}

func notOfFormat(f Format, err error) error {
	return fault.New(fault.Corrupt, "read image", "the file is not a whole %s: %w", f, err).
		WithHelp("the file has its digest but not its format: check image.format, or compress it again")
}

// decompress opens the content of a file. whole is nil when the content's digest is the file's.
func decompress(f *os.File, format Format) (content io.Reader, whole hash.Hash, stop func(), err error) {
	switch format {
	case RawGzip:
		z, err := gzip.NewReader(bufio.NewReaderSize(f, 1<<20))
		if err != nil {
			return nil, nil, nil, err
		}
		return z, sha256.New(), func() { z.Close() }, nil
	case RawZstd:
		z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, nil, nil, err
		}
		return z, sha256.New(), z.Close, nil
	default:
		return f, nil, func() {}, nil
	}
}

// chunkSum is the chunk's digest, nil if it is all zeros.
func chunkSum(b []byte) []byte {
	if allZero(b) {
		return nil
	}
	sum := sha256.Sum256(b)
	return sum[:]
}

// allZero compares b with itself, one byte on: memory compare at the machine's speed.
func allZero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

func writeManifest(path string, m *Manifest) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func readManifest(path string) (*Manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var m Manifest
	if err := json.NewDecoder(io.LimitReader(f, maxManifestFile)).Decode(&m); err != nil {
		return nil, err
	}
	if m.ChunkSize != ChunkSize || m.Format.check() != nil || uint64(len(m.Chunks)) != (m.ContentSize+ChunkSize-1)/ChunkSize {
		return nil, errors.New("the manifest is not consistent")
	}
	return &m, nil
}
