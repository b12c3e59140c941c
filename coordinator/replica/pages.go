package replica

import (
	"bufio"
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bbolt maps its file, and every page that it read or wrote stays resident: after an import the log takes as much memory
// as it has bytes, though nobody reads it again. At rest the pages are given back.
const (
	pagesLook  = 10 * time.Second
	pagesRest  = 200     // entries in one look; ticks alone are 40
	pagesLeast = 4 << 20 // bytes that are resident; less is not worth it
)

// runPages gives the log's pages back whenever the log is at rest.
func (r *Replica) runPages(ctx context.Context) {
	t := time.NewTicker(pagesLook)
	defer t.Stop()
	last := r.raft.LastIndex()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		was := last
		if last = r.raft.LastIndex(); last-was <= pagesRest {
			returnPages(r.store.file)
		}
	}
}

// returnPages asks the kernel to reclaim the mapped pages of a file. The advice changes no memory, so that it does not
// matter when bbolt maps anew meanwhile; a kernel that does not take it (before Linux 5.4) keeps the pages.
func returnPages(path string) {
	for _, m := range mappings(path) {
		if m.resident >= pagesLeast {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.size, unix.MADV_PAGEOUT)
		}
	}
}

type mapping struct {
	start, size uintptr
	resident    int // bytes
}

// mappings are this process's of a file, as proc(5) smaps has them.
func mappings(path string) (all []mapping) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil
	}
	defer f.Close()
	mine := false
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		switch {
		case len(fields) >= 5 && strings.Contains(fields[0], "-"): // 7f00-7f01 r--s 00000000 fe:00 123 /path
			from, to, _ := strings.Cut(fields[0], "-")
			a, errA := strconv.ParseUint(from, 16, 64)
			b, errB := strconv.ParseUint(to, 16, 64)
			if mine = errA == nil && errB == nil && strings.HasSuffix(s.Text(), " "+path); mine {
				all = append(all, mapping{start: uintptr(a), size: uintptr(b - a)})
			}
		case mine && len(fields) == 3 && fields[0] == "Rss:":
			kib, _ := strconv.Atoi(fields[1])
			all[len(all)-1].resident = kib << 10
		}
	}
	return all
}
