package heap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"unsafe"
)

// TestHeapGrowsWhereHugePagesAre: what is allocated after Huge lies at addresses with the advice.
func TestHeapGrowsWhereHugePagesAre(t *testing.T) {
	const n = 64 << 20
	debug.FreeOSMemory() // what other tests left would be free only after Huge
	got := Huge(n)
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); errors.Is(err, fs.ErrNotExist) {
		if got {
			t.Error("this kernel has no huge pages, and gives them")
		}
		return
	}
	if !got {
		t.Fatal("no advice was taken")
	}
	b := make([]byte, n/2)
	defer runtime.KeepAlive(b)
	if flags := flagsAt(t, uintptr(unsafe.Pointer(&b[len(b)/2]))); !strings.Contains(flags, " hg") {
		t.Errorf("the heap grows at an address with the flags %q", flags)
	}
}

// flagsAt are the flags of the mapping with an address: VmFlags of proc_pid_smaps(5).
func flagsAt(t *testing.T, at uintptr) string {
	t.Helper()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	inside := false
	for line := range strings.Lines(string(smaps)) {
		var from, to uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 {
			inside = from <= at && at < to
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && inside {
			return flags
		}
	}
	t.Fatalf("no mapping has the address %x", at)
	return ""
}
