package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"
	"os"
	"slices"

	"github.com/farrier-project/farrier/coordinator/replica/fatal"
)

// bbolt believes its pages: only the two meta pages have checksums, a damaged tree can hide keys, panic in a
// goroutine of bbolt's own or never end, and a damaged newer meta page silently brings the older state back, a
// forgotten vote included. So the file's tree is walked here first. The layout is bbolt's (page.go, meta.go).
const (
	magic      = 0xED0CDAED
	version    = 2
	header     = 16 // of a page: id, flags, count, overflow
	element    = 16 // of a branch or leaf element
	metaSize   = 64 // with its checksum, after the page header
	branch     = 0x01
	leaf       = 0x02
	freelist   = 0x10
	subBucket  = 0x01
	noFreelist = ^uint64(0)
	maxDepth   = 64
	maxBuckets = 64
)

type meta struct {
	pageSize             uint32
	root, freelist, high uint64
	txid                 uint64
}

// Check fails unless the file at rest is a whole bbolt database. Errors are fault.Corrupt. The file must not be open.
func Check(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fatal.Corrupt(path, "%w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fatal.Corrupt(path, "%w", err)
	}
	w := &walk{path: path, file: f, size: st.Size(), seen: map[uint64]bool{}}
	m, err := w.metas()
	if err != nil {
		return err
	}
	w.meta = m
	w.seen[0], w.seen[1] = true, true
	if m.freelist != noFreelist {
		if p, err := w.page(m.freelist, "freelist"); err != nil {
			return err
		} else if flags := binary.LittleEndian.Uint16(p[8:]); flags != freelist {
			return fatal.Corrupt(path, "page %d is not the freelist (flags %#x)", m.freelist, flags)
		}
	}
	return w.bucket(m.root, 0)
}

type walk struct {
	path    string
	file    *os.File
	size    int64
	meta    meta
	seen    map[uint64]bool
	buckets int
}

// metas reads both meta pages and answers the newer one.
func (w *walk) metas() (meta, error) {
	var m [2]meta
	size := int64(os.Getpagesize())
	for i := range m {
		raw := make([]byte, header+metaSize)
		if _, err := w.file.ReadAt(raw, int64(i)*size); err != nil {
			return meta{}, fatal.Corrupt(w.path, "meta page %d: %w", i, noEOF(err))
		}
		raw = raw[header:]
		h := fnv.New64a()
		h.Write(raw[:metaSize-8])
		le := binary.LittleEndian
		if le.Uint32(raw) != magic || le.Uint32(raw[4:]) != version || le.Uint64(raw[56:]) != h.Sum64() {
			return meta{}, fatal.Corrupt(w.path, "meta page %d does not match its checksum: the last commit, a vote perhaps, may be lost", i)
		}
		m[i] = meta{pageSize: le.Uint32(raw[8:]), root: le.Uint64(raw[16:]), freelist: le.Uint64(raw[32:]), high: le.Uint64(raw[40:]), txid: le.Uint64(raw[48:])}
		if i == 0 {
			size = int64(m[0].pageSize)
		}
	}
	old, cur := m[0], m[1]
	if old.txid > cur.txid {
		old, cur = cur, old
	}
	if cur.txid != old.txid+1 || cur.pageSize != old.pageSize {
		return meta{}, fatal.Corrupt(w.path, "the meta pages have transactions %d and %d, which are not adjacent", old.txid, cur.txid)
	}
	return cur, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the file is cut short")
	}
	return err
}

// page reads a page with its overflow, once.
func (w *walk) page(id uint64, what string) ([]byte, error) {
	size := int64(w.meta.pageSize)
	if id >= w.meta.high || id > uint64(w.size/size) {
		return nil, fatal.Corrupt(w.path, "%s page %d is past the end (%d pages)", what, id, w.meta.high)
	}
	head := make([]byte, header)
	if _, err := w.file.ReadAt(head, int64(id)*size); err != nil {
		return nil, fatal.Corrupt(w.path, "page %d: %w", id, noEOF(err))
	}
	if got := binary.LittleEndian.Uint64(head); got != id {
		return nil, fatal.Corrupt(w.path, "page %d says that it is page %d", id, got)
	}
	more := uint64(binary.LittleEndian.Uint32(head[12:]))
	if id+more >= w.meta.high || int64(id+more+1)*size > w.size {
		return nil, fatal.Corrupt(w.path, "page %d has %d more pages, past the end", id, more)
	}
	for i := id; i <= id+more; i++ {
		if w.seen[i] {
			return nil, fatal.Corrupt(w.path, "page %d is used twice", i)
		}
		w.seen[i] = true
	}
	p := make([]byte, int64(more+1)*size)
	if _, err := w.file.ReadAt(p, int64(id)*size); err != nil {
		return nil, fatal.Corrupt(w.path, "page %d: %w", id, noEOF(err))
	}
	return p, nil
}

func (w *walk) bucket(root uint64, level int) error {
	if w.buckets++; w.buckets > maxBuckets || level > 4 {
		return fatal.Corrupt(w.path, "too many buckets")
	}
	return w.tree(root, nil, nil, 0, level)
}

// tree walks a page and what is below it. Its keys must be in [low, high); a nil bound is none.
func (w *walk) tree(id uint64, low, high []byte, depth, level int) error {
	if depth > maxDepth {
		return fatal.Corrupt(w.path, "page %d is too deep", id)
	}
	p, err := w.page(id, "tree")
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint16(p[8:]) != branch {
		return w.leaf(id, p, low, high, level)
	}
	keys, ids, err := w.branch(id, p, low, high)
	if err != nil {
		return err
	}
	for i, child := range ids {
		to := high
		if i+1 < len(keys) {
			to = keys[i+1]
		}
		if err := w.tree(child, keys[i], to, depth+1, level); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) branch(id uint64, p, low, high []byte) (keys [][]byte, ids []uint64, err error) {
	n := int(binary.LittleEndian.Uint16(p[10:]))
	if n == 0 || header+n*element > len(p) {
		return nil, nil, fatal.Corrupt(w.path, "branch page %d has %d elements", id, n)
	}
	for i := range n {
		at := header + i*element
		pos, size := uint64(binary.LittleEndian.Uint32(p[at:])), uint64(binary.LittleEndian.Uint32(p[at+4:]))
		from := uint64(at) + pos
		if from+size > uint64(len(p)) || pos < uint64((n-i)*element) {
			return nil, nil, fatal.Corrupt(w.path, "branch page %d, element %d is out of bounds", id, i)
		}
		keys = append(keys, p[from:from+size])
		ids = append(ids, binary.LittleEndian.Uint64(p[at+8:]))
	}
	return keys, ids, w.sorted(id, keys, low, high)
}

func (w *walk) leaf(id uint64, p, low, high []byte, level int) error {
	if flags := binary.LittleEndian.Uint16(p[8:]); flags != leaf {
		return fatal.Corrupt(w.path, "page %d is neither branch nor leaf (flags %#x)", id, flags)
	}
	n := int(binary.LittleEndian.Uint16(p[10:]))
	if header+n*element > len(p) {
		return fatal.Corrupt(w.path, "leaf page %d has %d elements", id, n)
	}
	var keys [][]byte
	for i := range n {
		at := header + i*element
		flags, pos := binary.LittleEndian.Uint32(p[at:]), uint64(binary.LittleEndian.Uint32(p[at+4:]))
		ksize, vsize := uint64(binary.LittleEndian.Uint32(p[at+8:])), uint64(binary.LittleEndian.Uint32(p[at+12:]))
		from := uint64(at) + pos
		if from+ksize+vsize > uint64(len(p)) || pos < uint64((n-i)*element) || flags > subBucket {
			return fatal.Corrupt(w.path, "leaf page %d, element %d is out of bounds", id, i)
		}
		keys = append(keys, p[from:from+ksize])
		if flags == subBucket {
			if err := w.sub(id, p[from+ksize:from+ksize+vsize], level); err != nil {
				return err
			}
		}
	}
	return w.sorted(id, keys, low, high)
}

// sub walks a bucket within a leaf: its root page, or the small page that follows its header.
func (w *walk) sub(id uint64, value []byte, level int) error {
	if len(value) < 16 {
		return fatal.Corrupt(w.path, "leaf page %d has a cut bucket", id)
	}
	if root := binary.LittleEndian.Uint64(value); root != 0 {
		return w.bucket(root, level+1)
	}
	if len(value) < 16+header {
		return fatal.Corrupt(w.path, "leaf page %d has a cut bucket", id)
	}
	return w.leaf(id, value[16:], nil, nil, level+1)
}

func (w *walk) sorted(id uint64, keys [][]byte, low, high []byte) error {
	ok := slices.IsSortedFunc(keys, bytes.Compare)
	for i := 1; i < len(keys) && ok; i++ {
		ok = !bytes.Equal(keys[i-1], keys[i])
	}
	if len(keys) > 0 {
		ok = ok && (low == nil || bytes.Compare(keys[0], low) >= 0) && (high == nil || bytes.Compare(keys[len(keys)-1], high) < 0)
	}
	if !ok {
		return fatal.Corrupt(w.path, "the keys of page %d are out of order", id)
	}
	return nil
}
