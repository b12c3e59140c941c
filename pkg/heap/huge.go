package heap

import (
	"runtime/debug"

	"golang.org/x/sys/unix"
)

const block = 4 << 20 // what the runtime takes from the system at once

// Huge asks for huge pages for the first n bytes that the heap grows by; call it before it has grown. A page that is touched for
// the first time costs a fault, and on a virtual machine a fault costs as much as a record: with huge pages there is one for each
// 512. n is address space, no memory is taken. It has no effect, and says so, where the kernel gives none, or where so much address
// space is not to be had (vm.overcommit_memory=2). It works by allocating, advising and freeing: the runtime goes on with the
// addresses that it has, and the advice is the addresses'.
//
// Source: madvise(2), MADV_HUGEPAGE.
func Huge(n int) bool {
	probe, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // the runtime would end the process
	if err != nil || unix.Munmap(probe) != nil {
		return false
	}
	advised := advise(n)
	debug.FreeOSMemory() // or the runtime takes it for memory in use, and gives it back piece by piece
	return advised
}

// advise holds blocks of so much in all until all are advised: the lowest addresses come first, and none twice.
func advise(n int) bool {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for held := [][]byte{}; len(held) < n/block; {
		b := make([]byte, block)
		if unix.Madvise(b, unix.MADV_HUGEPAGE) != nil {
			return false
		}
		held = append(held, b)
	}
	return true
}
