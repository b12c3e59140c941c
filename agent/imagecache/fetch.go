package imagecache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/farrier-project/farrier/pkg/fault"
)

const (
	tries       = 6                // of one download without progress
	stall       = 30 * time.Second // without a byte
	leastBytes  = 1 << 20          // of one download in Config.Window
	reserveStep = 16 << 20         // bytes
	copyBuffer  = 256 << 10
)

// flight is one download in work.
type flight struct {
	src            Source
	arrived, total atomic.Int64
	done           chan struct{} // closed when err and abandoned are set
	err            error
	abandoned      bool // its caller's context ended
}

func (s Source) check() error {
	u, err := url.Parse(s.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return fault.New(fault.Invalid, "fetch image", "not a usable URL").
			WithHelp("give an http or https URL without a user name or password in it").WithDetail(&fault.FieldDetail{Field: "image.url"})
	}
	if !validSHA(s.SHA256) {
		return fault.New(fault.Invalid, "fetch image", "%.80q is not a SHA-256", s.SHA256).
			WithHelp("give the SHA-256 of the file, 64 hexadecimal digits in lower case: sha256sum FILE").WithDetail(&fault.FieldDetail{Field: "image.sha256"})
	}
	return s.Format.check()
}

// fly downloads, verifies, makes the manifest and puts the image into the cache.
func (c *Cache) fly(ctx context.Context, f *flight) (*Manifest, error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return nil, fault.New(fault.Aborted, "fetch image", "%w", ctx.Err())
	}
	sha := f.src.SHA256
	c.mu.Lock()
	have := c.items[sha] // in another format's reading
	c.mu.Unlock()
	if have == nil {
		if err := c.download(ctx, f); err != nil {
			return nil, fault.Wrap("fetch image "+sha[:12], err)
		}
	}
	kind := "part"
	if have != nil {
		kind = "image"
	}
	m, err := buildManifest(ctx, c.path(sha, kind), f.src, c.cfg.MaxContent)
	if err != nil {
		if have == nil && !fault.Is(err, fault.Aborted) {
			c.dropPart(sha)
		}
		return nil, fault.Wrap("read image "+sha[:12], err)
	}
	if err := c.commit(m, have == nil); err != nil {
		return nil, err
	}
	c.log.Info("image cache: image is ready", "sha256", sha, "bytes", m.FileSize, "content", m.ContentSize, "chunks", len(m.Chunks))
	return m, nil
}

// commit gives the verified file its name. The manifest goes first: an image without one is dropped at the next start.
func (c *Cache) commit(m *Manifest, fresh bool) error {
	err := writeManifest(c.path(m.SHA256, "manifest"), m)
	if err == nil && fresh {
		err = os.Rename(c.path(m.SHA256, "part"), c.path(m.SHA256, "image"))
	}
	if err == nil {
		err = syncDir(c.cfg.Dir)
	}
	if err != nil {
		return fault.New(fault.Unavailable, "store image", "%w", err).WithHelp("check the disk that holds the agent's image cache")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	if it := c.items[m.SHA256]; it != nil {
		it.manifest, it.used = m, c.seq
		return nil
	}
	delete(c.parts, m.SHA256)
	c.items[m.SHA256] = &item{manifest: m, size: int64(m.FileSize), used: c.seq, touched: time.Now()}
	return nil
}

// download fills the partial file until it has the digest. It goes on from what is there, and starts over once
// when that turns out wrong.
func (c *Cache) download(ctx context.Context, f *flight) error {
	sha := f.src.SHA256
	for {
		p, err := c.openPart(f)
		if err != nil {
			return err
		}
		resumed := p.size > 0
		err = c.fill(ctx, f, p)
		if err == nil {
			if serr := p.file.Sync(); serr != nil {
				err = diskError(serr)
			}
		}
		p.file.Close()
		c.mu.Lock()
		c.bytes += p.size - p.counted // what was reserved beyond what is there goes back
		c.parts[sha] = p.size
		c.mu.Unlock()
		if err != nil {
			if fault.Is(err, fault.TooLarge) || p.size == 0 {
				c.dropPart(sha)
			}
			return err
		}
		got := hex.EncodeToString(p.hash.Sum(nil))
		if got == sha {
			return nil
		}
		c.dropPart(sha)
		if !resumed {
			return fault.New(fault.Corrupt, "verify image", "the file has SHA-256 %s, not %s", got, sha).
				WithHelp("the file at the URL is not the one that was meant, or changed: check the URL and the digest")
		}
		c.log.Warn("image cache: resumed download has the wrong digest, starting over", "sha256", sha)
	}
}

// part is a partial file in work.
type part struct {
	file    *os.File
	hash    hash.Hash
	size    int64
	counted int64 // of the directory's bound
}

func (c *Cache) openPart(f *flight) (*part, error) {
	sha := f.src.SHA256
	file, err := os.OpenFile(c.path(sha, "part"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "open partial image", "%w", err)
	}
	h := sha256.New()
	n, err := io.Copy(h, file) // leaves the offset at the end
	if err != nil {
		file.Close()
		return nil, fault.New(fault.Unavailable, "read partial image", "%w", err)
	}
	c.mu.Lock()
	counted := c.parts[sha]
	c.parts[sha] = n
	c.bytes += n - counted
	c.mu.Unlock()
	f.arrived.Store(n)
	return &part{file: file, hash: h, size: n, counted: n}, nil
}

func (c *Cache) dropPart(sha string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	os.Remove(c.path(sha, "part"))
	c.bytes -= c.parts[sha]
	delete(c.parts, sha)
}

// fill requests the rest of the file until it is all there. Cuts are followed by another request for what is missing;
// tries count only those that brought nothing.
func (c *Cache) fill(ctx context.Context, f *flight, p *part) error {
	ctx, stop := c.paced(ctx, f)
	defer stop()
	for try := 1; ; {
		before := p.size
		err := c.request(ctx, f, p)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ended(ctx)
		}
		if p.size > before {
			try = 1
		}
		var cut *cutError
		if !errors.As(err, &cut) {
			return err
		}
		if try >= tries {
			return fault.New(fault.Unavailable, "download", "%d tries in a row failed, the last: %w", try, cut.err).
				WithHelp("check that the agent can reach the image's server")
		}
		c.log.Warn("image cache: download was cut, going on", "sha256", f.src.SHA256, "bytes", p.size, "err", cut.err)
		select {
		case <-time.After(c.cfg.Retry * time.Duration(try)):
		case <-ctx.Done():
			return ended(ctx)
		}
		try++
	}
}

var errSlow = errors.New("the server sends less than 1 MiB in a window") // read-only

// paced ends the context of a download that is too slow: it would hold one of the few places for ever.
func (c *Cache) paced(ctx context.Context, f *flight) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	last := f.arrived.Load()
	var pace *time.Timer
	ready := make(chan struct{})
	pace = time.AfterFunc(c.cfg.Window, func() {
		<-ready
		now := f.arrived.Load()
		if now-last < leastBytes { // also after a start over
			cancel(errSlow)
			return
		}
		last = now
		pace.Reset(c.cfg.Window)
	})
	close(ready)
	return ctx, func() { pace.Stop(); cancel(nil) }
}

// ended is why a download's context ended.
func ended(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), errSlow) {
		return fault.New(fault.Unavailable, "download", "%w", errSlow).WithHelp("check the image's server and the way to it")
	}
	return fault.New(fault.Aborted, "download", "%w", ctx.Err())
}

// cutError is a failure that another request may mend.
type cutError struct{ err error }

func (e *cutError) Error() string { return e.err.Error() }
func (e *cutError) Unwrap() error { return e.err }

// request makes one GET for what is missing, and appends what comes.
func (c *Cache) request(ctx context.Context, f *flight, p *part) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(stall, func() { cancel(fmt.Errorf("no data for %s", stall)) })
	defer watchdog.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.src.URL, nil)
	if err != nil {
		return fault.New(fault.Invalid, "download", "%w", err)
	}
	req.Header.Set("User-Agent", "farrier-agent")
	req.Header.Set("Accept-Encoding", "identity") // the digest is of the file as stored
	if p.size > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", p.size))
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return c.dialError(ctx, err)
	}
	defer resp.Body.Close()
	if err := c.begin(f, p, resp); err != nil || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return err
	}
	buf := make([]byte, copyBuffer)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			watchdog.Reset(stall)
			if err := c.appendTo(f, p, buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return &cutError{err}
		}
	}
}

func (c *Cache) dialError(ctx context.Context, err error) error {
	var policy *fault.Error
	if errors.As(err, &policy) {
		return policy
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // without the URL, which may carry a signature
	}
	return &cutError{err}
}

// begin checks the answer's head, and starts over when the server sends the whole file to a request for its rest.
func (c *Cache) begin(f *flight, p *part, resp *http.Response) error {
	var total int64
	switch s := resp.StatusCode; {
	case s == http.StatusPartialContent && p.size > 0:
		var ok bool
		if total, ok = rangeTotal(resp.Header.Get("Content-Range"), p.size); !ok {
			return restart(f, p)
		}
	case s == http.StatusOK:
		total = max(resp.ContentLength, 0)
		if p.size > 0 {
			if err := truncate(f, p); err != nil {
				return err
			}
		}
	case s == http.StatusRequestedRangeNotSatisfiable && p.size > 0:
		total = p.size // all of it is here; the digest decides
	case s == http.StatusNotFound || s == http.StatusGone:
		return fault.New(fault.NotFound, "download", "the server answered %s", resp.Status).WithHelp("check the image's URL")
	case s >= 500 || s == http.StatusTooManyRequests || s == http.StatusRequestTimeout:
		return &cutError{fmt.Errorf("the server answered %s", resp.Status)}
	default:
		return fault.New(fault.Denied, "download", "the server answered %s", resp.Status).
			WithHelp("the agent sends no credentials: the URL must be readable without")
	}
	if total > c.cfg.MaxFile {
		return tooLarge(total, c.cfg.MaxFile)
	}
	f.total.Store(total)
	return nil
}

func restart(f *flight, p *part) error {
	if err := truncate(f, p); err != nil {
		return err
	}
	return &cutError{errors.New("the server's range is not the one that was asked for")}
}

func truncate(f *flight, p *part) error {
	if err := p.file.Truncate(0); err != nil {
		return fault.New(fault.Unavailable, "download", "%w", err)
	}
	if _, err := p.file.Seek(0, io.SeekStart); err != nil {
		return fault.New(fault.Unavailable, "download", "%w", err)
	}
	p.hash.Reset()
	p.size = 0
	f.arrived.Store(0)
	return nil
}

func rangeTotal(header string, from int64) (total int64, ok bool) {
	rest, ok := strings.CutPrefix(header, fmt.Sprintf("bytes %d-", from))
	if !ok {
		return 0, false
	}
	_, size, ok := strings.Cut(rest, "/")
	if !ok {
		return 0, false
	}
	if size == "*" {
		return 0, true
	}
	n, err := strconv.ParseInt(size, 10, 64)
	return n, err == nil && n >= from
}

func (c *Cache) appendTo(f *flight, p *part, b []byte) error {
	if p.size+int64(len(b)) > c.cfg.MaxFile {
		return tooLarge(p.size+int64(len(b)), c.cfg.MaxFile)
	}
	if err := c.account(p, p.size+int64(len(b)), f.total.Load()); err != nil {
		return err
	}
	if _, err := p.file.Write(b); err != nil {
		return diskError(err)
	}
	p.hash.Write(b)
	p.size += int64(len(b))
	f.arrived.Store(p.size)
	return nil
}

// account reserves room for the partial file to grow to size: for all of it when its end is known and near, else a step
// ahead, else just that.
func (c *Cache) account(p *part, size, total int64) error {
	if size <= p.counted {
		return nil
	}
	exact := size - p.counted
	ahead := int64(reserveStep)
	if total >= size {
		ahead = min(ahead, total-p.counted)
	}
	if ahead > exact && c.reserve(ahead) == nil {
		p.counted += ahead
		return nil
	}
	if err := c.reserve(exact); err != nil {
		return err
	}
	p.counted += exact
	return nil
}

func diskError(err error) error {
	return fault.New(fault.Unavailable, "download", "%w", err).WithHelp("check the disk that holds the agent's image cache")
}

func tooLarge(n, limit int64) error {
	return fault.New(fault.TooLarge, "download", "the image file has at least %d bytes, the limit is %d", n, limit).
		WithHelp("raise the agent's limit for image files, or use a smaller or compressed image")
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
