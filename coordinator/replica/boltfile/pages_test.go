package boltfile

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReturnPages: pages that were read leave memory, and hold what they held when they are read again.
func TestReturnPages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	content := make([]byte, 2*pagesLeast)
	for i := range content {
		content[i] = byte(i >> 12)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fsync(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, len(content), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(data)
	same := func() {
		t.Helper()
		for i := range data {
			if data[i] != content[i] {
				t.Fatalf("byte %d is %d, not %d", i, data[i], content[i])
			}
		}
	}
	same()
	before := mappings(path)
	if len(before) != 1 || before[0].size != uintptr(len(content)) || before[0].resident != len(content) {
		t.Fatalf("the mapping is %+v", before)
	}
	(&File{path: path}).ReturnPages()
	if after := mappings(path); len(after) != 1 || after[0].resident > before[0].resident {
		t.Errorf("the mapping is %+v, it was %+v", after, before)
	}
	same()
}
