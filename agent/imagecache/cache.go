package imagecache

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Defaults and bounds.
const (
	DefaultMaxBytes   = 100 << 30 // of the directory
	DefaultMaxFile    = 64 << 30  // of one file, as fetched
	DefaultMaxContent = 1 << 40   // of one image, decompressed
	DefaultDownloads  = 4         // at once; more wait
	maxItems          = 10000
)

// Config is what a Cache needs. Dir is required.
type Config struct {
	Dir        string // its own directory, made if missing
	MaxBytes   int64  // default DefaultMaxBytes
	MaxFile    int64  // default DefaultMaxFile
	MaxContent int64  // default DefaultMaxContent
	Downloads  int    // default DefaultDownloads
	// Allow lists networks that are refused otherwise: loopback, link-local (the clouds' metadata services), multicast.
	Allow []netip.Prefix
	// Deny lists networks that are refused besides, such as that of the BMCs. Allow goes before Deny.
	Deny    []netip.Prefix
	RootCAs *x509.CertPool // for https; nil: the system's
	Retry   time.Duration  // pause before going on after a cut, growing; default 1 s
	Window  time.Duration  // in which a download must bring 1 MiB, or its end; default 5 min
	Log     *slog.Logger
}

// Cache is a directory of images. It is safe for concurrent use. One process may use a directory.
type Cache struct {
	cfg    Config
	log    *slog.Logger
	client *http.Client
	slots  chan struct{}

	mu      sync.Mutex // guards all fields below
	items   map[string]*item
	flights map[string]*flight
	bytes   int64 // of items, of partial files, and reserved by flights
	parts   map[string]int64
	held    map[string]string // digest by holder
	seq     uint64            // of uses
}

type item struct {
	manifest *Manifest
	size     int64
	used     uint64
	touched  time.Time
	readers  int
}

// Source names an image and where it can be had.
type Source struct {
	URL    string
	SHA256 string // hex, of the file
	Format Format
}

// Open makes the directory if need be, and takes back what is in it.
func Open(cfg Config) (*Cache, error) {
	if cfg.Dir == "" {
		return nil, fault.New(fault.Invalid, "open image cache", "no directory is given")
	}
	cfg.MaxBytes = or(cfg.MaxBytes, DefaultMaxBytes)
	cfg.MaxFile = or(cfg.MaxFile, DefaultMaxFile)
	cfg.MaxContent = or(cfg.MaxContent, DefaultMaxContent)
	cfg.Downloads = int(or(int64(cfg.Downloads), DefaultDownloads))
	if cfg.Retry <= 0 {
		cfg.Retry = time.Second
	}
	if cfg.Window <= 0 {
		cfg.Window = 5 * time.Minute
	}
	cfg.MaxFile = min(cfg.MaxFile, cfg.MaxBytes)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fault.New(fault.Unavailable, "open image cache", "%w", err)
	}
	c := &Cache{cfg: cfg, log: cfg.Log, client: newClient(cfg), slots: make(chan struct{}, cfg.Downloads),
		items: map[string]*item{}, flights: map[string]*flight{}, parts: map[string]int64{}, held: map[string]string{}}
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

func or(v, def int64) int64 {
	if v <= 0 {
		return def
	}
	return v
}

// Close ends idle connections. Fetches in work end with their contexts.
func (c *Cache) Close() { c.client.CloseIdleConnections() }

// load reads the directory: complete images, oldest use first, and partial files. What is neither is removed.
func (c *Cache) load() error {
	entries, err := os.ReadDir(c.cfg.Dir)
	if err != nil {
		return fault.New(fault.Unavailable, "open image cache", "%w", err)
	}
	for _, e := range entries {
		sha, kind, _ := strings.Cut(e.Name(), ".")
		st, err := e.Info()
		if err != nil || !st.Mode().IsRegular() || !validSHA(sha) {
			continue // not ours: left alone
		}
		switch kind {
		case "image":
			m, err := readManifest(c.path(sha, "manifest"))
			if err != nil || m.SHA256 != sha || int64(m.FileSize) != st.Size() {
				c.log.Warn("image cache: dropped an image without a matching manifest", "sha256", sha, "err", err)
				os.Remove(c.path(sha, "image"))
				os.Remove(c.path(sha, "manifest"))
				continue
			}
			c.items[sha] = &item{manifest: m, size: st.Size(), touched: st.ModTime()}
			c.bytes += st.Size()
		case "part":
			c.parts[sha] = st.Size()
			c.bytes += st.Size()
		case "manifest":
			if _, err := os.Stat(c.path(sha, "image")); errors.Is(err, os.ErrNotExist) {
				os.Remove(c.path(sha, "manifest"))
			}
		default:
			os.Remove(filepath.Join(c.cfg.Dir, e.Name()))
		}
	}
	order := make([]*item, 0, len(c.items))
	for _, it := range c.items {
		order = append(order, it)
	}
	slices.SortFunc(order, func(a, b *item) int { return a.touched.Compare(b.touched) })
	for _, it := range order {
		c.seq++
		it.used = c.seq
	}
	if c.bytes > c.cfg.MaxBytes {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.makeRoom(0)
	}
	return nil
}

func (c *Cache) path(sha, kind string) string { return filepath.Join(c.cfg.Dir, sha+"."+kind) }

func validSHA(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && s == strings.ToLower(s)
}

// Fetch sees to it that the image is in the cache, and returns its manifest, which is not to be changed. It blocks until then. Errors: Invalid
// (source), NotFound, Unavailable and Timeout (of the origin), Denied (the policy), Corrupt (another
// digest, or not of its format), TooLarge, Busy (no room on disk).
func (c *Cache) Fetch(ctx context.Context, src Source) (*Manifest, error) {
	if err := src.check(); err != nil {
		return nil, err
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, fault.New(fault.Aborted, "fetch image", "%w", err)
		}
		c.mu.Lock()
		if it := c.items[src.SHA256]; it != nil && it.manifest.Format == src.Format {
			c.use(it)
			m := it.manifest
			c.mu.Unlock()
			return m, nil
		}
		if f := c.flights[src.SHA256]; f != nil {
			c.mu.Unlock()
			select {
			case <-f.done:
			case <-ctx.Done():
				continue
			}
			if f.err != nil && !f.abandoned && f.src == src {
				return nil, f.err
			}
			continue // it is here, or its caller left: go on from there
		}
		f := &flight{src: src, done: make(chan struct{})}
		c.flights[src.SHA256] = f
		c.mu.Unlock()
		m, err := c.fly(ctx, f)
		c.mu.Lock()
		delete(c.flights, src.SHA256)
		f.err, f.abandoned = err, ctx.Err() != nil
		c.mu.Unlock()
		close(f.done)
		return m, err
	}
}

// Progress tells how much of an image that is being fetched has arrived, in bytes; total is 0 when unknown. It is
// false when no fetch is in work.
func (c *Cache) Progress(sha string) (done, total int64, ok bool) {
	c.mu.Lock()
	f := c.flights[sha]
	c.mu.Unlock()
	if f == nil {
		return 0, 0, false
	}
	return f.arrived.Load(), f.total.Load(), true
}

// Manifest is that of an image in the cache. NotFound if it is not there.
func (c *Cache) Manifest(sha string) (*Manifest, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	it := c.items[sha]
	if it == nil {
		return nil, notCached(sha)
	}
	c.use(it)
	return it.manifest, nil
}

func notCached(sha string) error {
	return fault.New(fault.NotFound, "image cache", "%.64q is not in this agent's cache", sha).
		WithHelp("the agent fetches an image when a deploy needs it: ask again after the step has started")
}

// use marks an item as used now. The caller holds mu.
func (c *Cache) use(it *item) {
	c.seq++
	it.used = c.seq
	if now := time.Now(); now.Sub(it.touched) > time.Minute {
		it.touched = now
		p := c.path(it.manifest.SHA256, "image")
		_ = os.Chtimes(p, now, now) // only the order after a restart depends on it
	}
}

// reserve takes n more bytes of the directory's bound, and removes images to make room.
func (c *Cache) reserve(n int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.makeRoom(n) {
		c.bytes += n
		return nil
	}
	return fault.New(fault.Busy, "image cache", "no room for %d more bytes: the cache holds %d of %d and all of it is in use", n, c.bytes, c.cfg.MaxBytes).
		WithHelp("raise the agent's image cache size, or wait for other downloads")
}

// makeRoom removes partial files that nobody fetches, then the least recently used images, until n more bytes fit. If
// they cannot, it removes nothing. The caller holds mu.
func (c *Cache) makeRoom(n int64) bool {
	needed := c.bytes + n - c.cfg.MaxBytes
	if needed > c.removable() {
		return false
	}
	for sha, size := range c.parts {
		if needed <= 0 {
			break
		}
		if c.flights[sha] == nil {
			os.Remove(c.path(sha, "part"))
			delete(c.parts, sha)
			c.bytes -= size
			needed -= size
		}
	}
	for needed > 0 || len(c.items) >= maxItems {
		var victim string
		for sha, it := range c.items {
			if c.idle(sha, it) && (victim == "" || it.used < c.items[victim].used) {
				victim = sha
			}
		}
		if victim == "" {
			return false
		}
		size := c.items[victim].size
		c.log.Info("image cache: removed the least recently used image", "sha256", victim, "bytes", size)
		c.remove(victim)
		needed -= size
	}
	return true
}

// removable counts the bytes that makeRoom could free. The caller holds mu.
func (c *Cache) removable() (n int64) {
	for sha, size := range c.parts {
		if c.flights[sha] == nil {
			n += size
		}
	}
	for sha, it := range c.items {
		if c.idle(sha, it) {
			n += it.size
		}
	}
	return n
}

// idle tells whether nobody reads an image, works on it, or holds it. The caller holds mu.
func (c *Cache) idle(sha string, it *item) bool {
	if it.readers > 0 || c.flights[sha] != nil {
		return false
	}
	for _, held := range c.held {
		if held == sha {
			return false
		}
	}
	return true
}

// Hold keeps an image from being removed, whether it is here yet or not, until Release: a machine reads it in many
// requests. A holder holds one image: another takes the place of the first.
func (c *Cache) Hold(holder, sha string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held[holder] = sha
}

// Release ends a hold. It is harmless when there is none.
func (c *Cache) Release(holder string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.held, holder)
}

func (c *Cache) remove(sha string) {
	os.Remove(c.path(sha, "manifest"))
	os.Remove(c.path(sha, "image"))
	c.bytes -= c.items[sha].size
	delete(c.items, sha)
}
