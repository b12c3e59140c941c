package imagecache

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/farrier-project/farrier/pkg/fault"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func open(t *testing.T, edit func(*Config)) *Cache {
	t.Helper()
	cfg := Config{Dir: t.TempDir(), Allow: loopback, Retry: time.Millisecond}
	if edit != nil {
		edit(&cfg)
	}
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func random(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func sum(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }

// origin serves one file and counts requests; serve, if set, takes over.
type origin struct {
	*httptest.Server
	content  []byte
	requests atomic.Int32
	serve    func(w http.ResponseWriter, r *http.Request, n int32)
}

func newOrigin(t *testing.T, content []byte) *origin {
	t.Helper()
	o := &origin{content: content}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := o.requests.Add(1)
		if o.serve != nil {
			o.serve(w, r, n)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(o.content))
	}))
	t.Cleanup(o.Close)
	return o
}

func (o *origin) source(f Format) Source {
	return Source{URL: o.URL + "/image", SHA256: sum(o.content), Format: f}
}

// cut answers with the file from the requested offset, and drops the connection after n bytes of it.
func cut(w http.ResponseWriter, r *http.Request, content []byte, n int) {
	from := 0
	if h := r.Header.Get("Range"); h != "" {
		from, _ = strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(h, "bytes="), "-"))
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(content)-from))
	if from > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	_, _ = w.Write(content[from:min(from+n, len(content))])
	if from+n < len(content) {
		panic(http.ErrAbortHandler)
	}
}

func TestFetchAndServe(t *testing.T) {
	content := append(append(random(t, ChunkSize), make([]byte, ChunkSize)...), random(t, 1000)...)
	var gz bytes.Buffer
	zw, err := gzip.NewWriterLevel(&gz, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := zw.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	for format, file := range map[Format][]byte{Raw: content, RawGzip: gz.Bytes(), RawZstd: enc.EncodeAll(content, nil)} {
		o := newOrigin(t, file)
		c := open(t, nil)
		m, err := c.Fetch(t.Context(), o.source(format))
		if err != nil {
			t.Errorf("%s: %v", format, err)
			continue
		}
		if m.ContentSize != uint64(len(content)) || m.FileSize != uint64(len(file)) || m.ContentSHA256 != sum(content) || len(m.Chunks) != 3 {
			t.Errorf("%s: manifest %d of %d bytes in %d chunks, content %s", format, m.ContentSize, m.FileSize, len(m.Chunks), m.ContentSHA256)
			continue
		}
		if hex.EncodeToString(m.Chunks[0]) != sum(content[:ChunkSize]) || len(m.Chunks[1]) != 0 || hex.EncodeToString(m.Chunks[2]) != sum(content[2*ChunkSize:]) {
			t.Errorf("%s: chunk digests %x", format, m.Chunks)
		}
		if _, err := c.Fetch(t.Context(), o.source(format)); err != nil || o.requests.Load() != 1 {
			t.Errorf("%s: the second fetch: %v, %d requests", format, err, o.requests.Load())
		}
		r := httptest.NewRequest("GET", "/images/"+m.SHA256, nil)
		r.Header.Set("Range", "bytes=5-9")
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		if w.Code != 206 || !bytes.Equal(w.Body.Bytes(), file[5:10]) {
			t.Errorf("%s: range: %d with %d bytes", format, w.Code, w.Body.Len())
		}
	}
}

func TestServeRefuses(t *testing.T) {
	c := open(t, nil)
	for _, tt := range []struct {
		method, path string
		code         int
	}{{"GET", "/images/" + sum(nil), 404}, {"GET", "/images/../../etc/passwd", 404}, {"GET", "/images/", 404}, {"PUT", "/images/" + sum(nil), 405}} {
		w := httptest.NewRecorder()
		c.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		if w.Code != tt.code {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, w.Code, tt.code)
		}
	}
}

func TestFetchRefuses(t *testing.T) {
	content := random(t, 100_000)
	bomb := func(n int) []byte { // MiB of zeros, as members of one file
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write(make([]byte, 1<<20))
		_ = w.Close()
		return bytes.Repeat(b.Bytes(), n)
	}
	tests := []struct {
		name string
		file []byte
		cfg  func(*Config)
		src  func(*Source)
		do   func(w http.ResponseWriter, r *http.Request, n int32)
		kind fault.Kind
	}{
		{"wrong digest", content, nil, func(s *Source) { s.SHA256 = sum([]byte("other")) }, nil, fault.Corrupt},
		{"truncated at the origin", content, nil, nil, func(w http.ResponseWriter, _ *http.Request, _ int32) { _, _ = w.Write(content[:50_000]) }, fault.Corrupt},
		{"cut again and again at the same place", content, nil, nil, func(w http.ResponseWriter, r *http.Request, n int32) {
			if n == 1 {
				cut(w, r, content, 50_000)
			}
			panic(http.ErrAbortHandler)
		}, fault.Unavailable},
		{"larger than the cap, announced", content, func(c *Config) { c.MaxFile = 99_999 }, nil, nil, fault.TooLarge},
		{"larger than the cap, unannounced", content, func(c *Config) { c.MaxFile = 99_999 }, nil, func(w http.ResponseWriter, _ *http.Request, _ int32) {
			_, _ = w.Write(content[:10])
			w.(http.Flusher).Flush()
			_, _ = w.Write(content[10:])
		}, fault.TooLarge},
		{"larger than the cache", content, func(c *Config) { c.MaxBytes = 60_000 }, nil, nil, fault.TooLarge},
		{"gzip bomb", bomb(9), func(c *Config) { c.MaxContent = 8 << 20 }, func(s *Source) { s.Format = RawGzip }, nil, fault.TooLarge},
		{"not gzip", content, nil, func(s *Source) { s.Format = RawGzip }, nil, fault.Corrupt},
		{"not zstd", content, nil, func(s *Source) { s.Format = RawZstd }, nil, fault.Corrupt},
		{"half a gzip file", bomb(4)[:2_000], nil, func(s *Source) { s.Format = RawGzip }, nil, fault.Corrupt},
		{"unknown format", content, nil, func(s *Source) { s.Format = "qcow2" }, nil, fault.Invalid},
		{"not a digest", content, nil, func(s *Source) { s.SHA256 = "abc" }, nil, fault.Invalid},
		{"digest in capitals", content, nil, func(s *Source) { s.SHA256 = strings.ToUpper(s.SHA256) }, nil, fault.Invalid},
		{"file URL", content, nil, func(s *Source) { s.URL = "file:///etc/passwd" }, nil, fault.Invalid},
		{"URL with a password", content, nil, func(s *Source) { s.URL = strings.Replace(s.URL, "http://", "http://u:p@", 1) }, nil, fault.Invalid},
		{"not there", content, nil, nil, func(w http.ResponseWriter, r *http.Request, _ int32) { http.NotFound(w, r) }, fault.NotFound},
		{"password needed", content, nil, nil, func(w http.ResponseWriter, _ *http.Request, _ int32) { w.WriteHeader(401) }, fault.Denied},
		{"server fails", content, nil, nil, func(w http.ResponseWriter, _ *http.Request, _ int32) { w.WriteHeader(503) }, fault.Unavailable},
		{"loopback is not allowed", content, func(c *Config) { c.Allow = nil }, nil, nil, fault.Denied},
		{"a denied network", content, func(c *Config) { c.Allow, c.Deny = nil, loopback }, nil, nil, fault.Denied},
		{"redirect to another scheme", content, nil, nil, func(w http.ResponseWriter, r *http.Request, _ int32) {
			http.Redirect(w, r, "https://"+r.Host+"/image", http.StatusFound)
		}, fault.Denied},
		{"redirect with a password", content, nil, nil, func(w http.ResponseWriter, r *http.Request, _ int32) {
			http.Redirect(w, r, "http://u:p@"+r.Host+"/image", http.StatusFound)
		}, fault.Denied},
		{"redirects for ever", content, nil, nil, func(w http.ResponseWriter, r *http.Request, _ int32) {
			http.Redirect(w, r, "/image", http.StatusFound)
		}, fault.Denied},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newOrigin(t, tt.file)
			o.serve = tt.do
			c := open(t, tt.cfg)
			src := o.source(Raw)
			if tt.src != nil {
				tt.src(&src)
			}
			m, err := c.Fetch(t.Context(), src)
			if !fault.Is(err, tt.kind) {
				t.Fatalf("%v, %v, want kind %s", m, err, tt.kind)
			}
			var f *fault.Error
			if errors.As(err, &f) && f.Help == "" {
				t.Errorf("%v: no help", err)
			}
			if _, err := c.Manifest(src.SHA256); !fault.Is(err, fault.NotFound) {
				t.Errorf("it is in the cache: %v", err)
			}
			if left, _ := filepath.Glob(filepath.Join(c.cfg.Dir, "*.image")); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
			checkBytes(t, c)
		})
	}
}

// checkBytes compares the accounts with the directory.
func checkBytes(t *testing.T, c *Cache) {
	t.Helper()
	var onDisk int64
	for _, kind := range []string{"*.image", "*.part"} {
		files, err := filepath.Glob(filepath.Join(c.cfg.Dir, kind))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			st, err := os.Stat(f)
			if err != nil {
				t.Fatal(err)
			}
			onDisk += st.Size()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bytes != onDisk || len(c.flights) != 0 {
		t.Errorf("the cache counts %d bytes and %d fetches, on disk are %d", c.bytes, len(c.flights), onDisk)
	}
}

func TestResumesByRange(t *testing.T) {
	content := random(t, 1_000_000)
	o := newOrigin(t, content)
	var ranges []string
	o.serve = func(w http.ResponseWriter, r *http.Request, n int32) {
		ranges = append(ranges, r.Header.Get("Range")) // one request at a time
		cut(w, r, content, 400_000)
	}
	c := open(t, nil)
	if _, err := c.Fetch(t.Context(), o.source(Raw)); err != nil {
		t.Fatal(err)
	}
	if len(ranges) < 3 || ranges[0] != "" || !strings.HasPrefix(ranges[1], "bytes=") {
		t.Errorf("requests %q", ranges)
	}
	checkBytes(t, c)
}

func TestServerWithoutRanges(t *testing.T) {
	content := random(t, 300_000)
	o := newOrigin(t, content)
	o.serve = func(w http.ResponseWriter, r *http.Request, n int32) {
		if n == 1 {
			cut(w, r, content, 100_000)
			return
		}
		_, _ = w.Write(content) // 200 to a range request
	}
	c := open(t, nil)
	if _, err := c.Fetch(t.Context(), o.source(Raw)); err != nil {
		t.Fatal(err)
	}
	checkBytes(t, c)
}

func TestRestart(t *testing.T) {
	content := random(t, 500_000)
	o := newOrigin(t, content)
	dir := t.TempDir()
	c := open(t, func(c *Config) { c.Dir = dir })
	// The first process is stopped in the middle of the download.
	ctx, stop := context.WithCancel(t.Context())
	o.serve = func(w http.ResponseWriter, r *http.Request, _ int32) {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content[:200_000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	failed := make(chan error, 1)
	go func() {
		_, err := c.Fetch(ctx, o.source(Raw))
		failed <- err
	}()
	for {
		if done, _, ok := c.Progress(sum(content)); ok && done >= 200_000 {
			break
		}
		select {
		case err := <-failed:
			t.Fatal(err)
		default:
		}
	}
	stop()
	if err := <-failed; !fault.Is(err, fault.Aborted) {
		t.Fatalf("a stopped fetch: %v, want aborted", err)
	}
	checkBytes(t, c)
	c.Close()

	// The second goes on where it stopped.
	var asked string
	o.serve = func(w http.ResponseWriter, r *http.Request, _ int32) {
		asked = r.Header.Get("Range")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}
	c = open(t, func(c *Config) { c.Dir = dir })
	m, err := c.Fetch(t.Context(), o.source(Raw))
	if err != nil || asked != "bytes=200000-" {
		t.Fatalf("%v, asked for %q", err, asked)
	}
	checkBytes(t, c)
	c.Close()

	// The third has it.
	o.Close()
	c = open(t, func(c *Config) { c.Dir = dir })
	again, err := c.Fetch(t.Context(), o.source(Raw))
	if err != nil || again.ContentSHA256 != m.ContentSHA256 || len(again.Chunks) != 1 {
		t.Errorf("after the restart: %+v, %v", again, err)
	}
}

func TestDamagedPartialStartsOver(t *testing.T) {
	content := random(t, 100_000)
	o := newOrigin(t, content)
	for name, part := range map[string][]byte{"damaged": make([]byte, 60_000), "longer than the file": make([]byte, 200_000)} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, sum(content)+".part"), part, 0o600); err != nil {
			t.Fatal(err)
		}
		c := open(t, func(c *Config) { c.Dir = dir })
		if _, err := c.Fetch(t.Context(), o.source(Raw)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		checkBytes(t, c)
	}
}

func TestLoadDropsWhatDoesNotFit(t *testing.T) {
	dir := t.TempDir()
	sha := sum([]byte("x"))
	for name, content := range map[string]string{
		sha + ".image": "x", sha + ".manifest": `{"sha256":"` + sha + `","format":"raw","file_size":2}`,
		sum(nil) + ".manifest": "{}", sum(nil) + ".manifest.tmp": "", "notes.txt": "not the cache's",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open(t, func(c *Config) { c.Dir = dir })
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 1 || left[0].Name() != "notes.txt" {
		t.Errorf("left: %v", left)
	}
}

func TestManyRequestsOneDownload(t *testing.T) {
	content := random(t, 3_000_000)
	o := newOrigin(t, content)
	started, release := make(chan struct{}), make(chan struct{})
	o.serve = func(w http.ResponseWriter, r *http.Request, _ int32) {
		close(started)
		<-release
		_, _ = w.Write(content)
	}
	c := open(t, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := c.Fetch(t.Context(), o.source(Raw)); err != nil {
				t.Error(err)
			}
		})
	}
	<-started
	close(release)
	wg.Wait()
	if n := o.requests.Load(); n != 1 {
		t.Errorf("%d downloads", n)
	}
	checkBytes(t, c)
}

// TestAnotherCallerGoesOn ends the context of the caller that downloads while a second one waits.
func TestAnotherCallerGoesOn(t *testing.T) {
	content := random(t, 400_000)
	o := newOrigin(t, content)
	o.serve = func(w http.ResponseWriter, r *http.Request, n int32) {
		if n > 1 {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content[:100_000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	c := open(t, nil)
	ctx, stop := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { _, err := c.Fetch(ctx, o.source(Raw)); first <- err }()
	for {
		if done, _, ok := c.Progress(sum(content)); ok && done >= 100_000 {
			break
		}
	}
	go func() { _, err := c.Fetch(t.Context(), o.source(Raw)); second <- err }()
	stop()
	if err := <-first; !fault.Is(err, fault.Aborted) {
		t.Errorf("the caller that left: %v", err)
	}
	if err := <-second; err != nil {
		t.Errorf("the caller that stayed: %v", err)
	}
	if n := o.requests.Load(); n != 2 {
		t.Errorf("%d requests", n)
	}
}

func TestLeastRecentlyUsedGoes(t *testing.T) {
	a, b, d := newOrigin(t, random(t, 40_000)), newOrigin(t, random(t, 40_000)), newOrigin(t, random(t, 40_000))
	c := open(t, func(c *Config) { c.MaxBytes = 100_000 })
	fetch := func(o *origin) {
		t.Helper()
		if _, err := c.Fetch(t.Context(), o.source(Raw)); err != nil {
			t.Fatal(err)
		}
	}
	fetch(a)
	fetch(b)
	if _, err := c.Manifest(sum(a.content)); err != nil { // a use
		t.Fatal(err)
	}
	fetch(d)
	if _, err := c.Manifest(sum(b.content)); !fault.Is(err, fault.NotFound) {
		t.Errorf("the least recently used image is still there: %v", err)
	}
	if _, err := c.Manifest(sum(a.content)); err != nil {
		t.Errorf("a used image went: %v", err)
	}
	checkBytes(t, c)

	// What is being read stays.
	c.mu.Lock()
	c.items[sum(a.content)].readers++
	c.items[sum(d.content)].readers++
	c.mu.Unlock()
	if _, err := c.Fetch(t.Context(), b.source(Raw)); !fault.Is(err, fault.Busy) {
		t.Errorf("with every image in use: %v, want busy", err)
	}
}

func TestRedirectIsFollowed(t *testing.T) {
	content := random(t, 1000)
	o := newOrigin(t, content)
	var referer string
	o.serve = func(w http.ResponseWriter, r *http.Request, n int32) {
		if n == 1 {
			http.Redirect(w, r, "/elsewhere?signature=secret", http.StatusFound)
			return
		}
		referer = r.Header.Get("Referer") + r.Header.Get("Authorization")
		_, _ = w.Write(content)
	}
	if _, err := open(t, nil).Fetch(t.Context(), o.source(Raw)); err != nil || referer != "" {
		t.Errorf("%v, %q", err, referer)
	}
}

func TestPolicy(t *testing.T) {
	cfg := Config{Allow: loopback, Deny: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}}
	for text, ok := range map[string]bool{"127.0.0.1": true, "10.1.1.1": true, "192.0.2.1": true, "10.9.1.1": false, "169.254.169.254": false,
		"::1": false, "fe80::1": false, "224.0.0.1": false, "0.0.0.0": false, "255.255.255.255": false, "2001:db8::1": true} {
		if err := cfg.allowed(netip.MustParseAddr(text)); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAllZero(t *testing.T) {
	for n := range 70 {
		b := make([]byte, n)
		if !allZero(b) {
			t.Errorf("%d zeros are not", n)
		}
		for i := range b {
			b[i] = 1
			if allZero(b) {
				t.Errorf("a one at %d of %d was not seen", i, n)
			}
			b[i] = 0
		}
	}
}

// TestAnotherFormat asks for one file first as raw, then as gzip: it is fetched once and read anew.
func TestAnotherFormat(t *testing.T) {
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	if _, err := w.Write([]byte("content")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	o := newOrigin(t, gz.Bytes())
	c := open(t, nil)
	var wg sync.WaitGroup
	for range 4 {
		for f, size := range map[Format]int{Raw: gz.Len(), RawGzip: len("content")} {
			wg.Go(func() {
				if m, err := c.Fetch(t.Context(), o.source(f)); err != nil || m.ContentSize != uint64(size) {
					t.Errorf("%s: %+v, %v", f, m, err)
				}
			})
		}
	}
	wg.Wait()
	if n := o.requests.Load(); n != 1 {
		t.Errorf("%d downloads", n)
	}
	checkBytes(t, c)
}

// TestHeldImageIsNotEvicted: an image that a machine was reading, in one request after another, went between two of them
// when another deploy's image needed the room.
func TestHeldImageIsNotEvicted(t *testing.T) {
	c := open(t, func(cfg *Config) { cfg.MaxBytes = 3 << 20 })
	a, b := newOrigin(t, random(t, 2<<20)), newOrigin(t, random(t, 2<<20))
	c.Hold("n1", sum(a.content))
	if _, err := c.Fetch(t.Context(), a.source(Raw)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Fetch(t.Context(), b.source(Raw)); !fault.Is(err, fault.Busy) {
		t.Errorf("the other image: %v, want busy", err)
	}
	if _, err := c.Manifest(sum(a.content)); err != nil {
		t.Errorf("the held image: %v", err)
	}
	c.Release("n1")
	if _, err := c.Fetch(t.Context(), b.source(Raw)); err != nil {
		t.Errorf("after the release: %v", err)
	}
	if _, err := c.Manifest(sum(a.content)); !fault.Is(err, fault.NotFound) {
		t.Errorf("the image that nobody holds: %v", err)
	}
}

// TestImageLargerThanTheCache: it waited for room that can never be.
func TestImageLargerThanTheCache(t *testing.T) {
	c := open(t, func(cfg *Config) { cfg.MaxBytes = 1 << 20 })
	if _, err := c.Fetch(t.Context(), newOrigin(t, random(t, 2<<20)).source(Raw)); !fault.Is(err, fault.TooLarge) {
		t.Errorf("%v, want too large", err)
	}
}

// TestDrippingOriginIsGivenUp: a server that sends a byte now and then kept one of the few places for ever.
func TestDrippingOriginIsGivenUp(t *testing.T) {
	c := open(t, func(cfg *Config) { cfg.Window = 100 * time.Millisecond })
	o := newOrigin(t, random(t, 1<<20))
	o.serve = func(w http.ResponseWriter, r *http.Request, _ int32) {
		for i := 0; i < len(o.content) && r.Context().Err() == nil; i++ {
			w.Write(o.content[i : i+1])
			w.(http.Flusher).Flush()
			select {
			case <-time.After(time.Millisecond):
			case <-r.Context().Done():
			}
		}
	}
	if _, err := c.Fetch(t.Context(), o.source(Raw)); !fault.Is(err, fault.Unavailable) || !errors.Is(err, errSlow) {
		t.Errorf("%v, want that it is too slow", err)
	}
}
