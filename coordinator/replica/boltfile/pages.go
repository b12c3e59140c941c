package boltfile

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// bbolt maps its file, and every page that it read or wrote stays resident: after an import the log takes as much memory
// as it has bytes, though nobody reads it again. At rest the pages are given back.

// pagesLeast is how many resident bytes of a mapping are worth it.
const pagesLeast = 4 << 20

// ReturnPages asks the kernel to reclaim the mapped pages of the file: for when it is at rest. The advice changes no memory, so
// that it does not matter when bbolt maps anew meanwhile; a kernel that does not take it (before Linux 5.4) keeps the pages.
func (f *File) ReturnPages() {
	for _, m := range mappings(f.path) {
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
