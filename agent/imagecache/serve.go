package imagecache

import (
	"net/http"
	"os"
	"strings"
	"time"
)

// ServeHTTP serves images by the last element of the path, their hex SHA-256, with ranges and HEAD.
func (c *Cache) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "Images are read-only.", http.StatusMethodNotAllowed)
		return
	}
	sha := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	c.mu.Lock()
	it := c.items[sha]
	if it == nil {
		c.mu.Unlock()
		http.Error(w, "This image is not in the agent's cache.", http.StatusNotFound)
		return
	}
	c.use(it)
	it.readers++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		it.readers--
	}()
	f, err := os.Open(c.path(sha, "image"))
	if err != nil {
		c.log.Error("image cache: an image is gone from its directory", "sha256", sha, "err", err)
		http.Error(w, "The image's file is gone.", http.StatusNotFound)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+sha+`"`)
	w.Header().Set("Cache-Control", "immutable")
	http.ServeContent(w, r, "", time.Time{}, f)
}
