package usage

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// CPU is the user and system time that processes have used so far.
func CPU(pids ...int) (time.Duration, error) {
	var total time.Duration
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
		for _, f := range fields[11:13] { // utime, stime in clock ticks of 10 ms (proc(5))
			ticks, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, err
			}
			total += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return total, nil
}

// own is the user and system time of this process.
func own() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Meter measures CPU of processes and of this one between two moments.
type Meter struct {
	pids  []int
	start time.Time
	used  time.Duration
	own   time.Duration
}

// Start begins to measure.
func Start(pids []int) (Meter, error) {
	used, err := CPU(pids...)
	return Meter{pids: pids, start: time.Now(), used: used, own: own()}, err
}

// Running is the time since Start.
func (m Meter) Running() time.Duration { return time.Since(m.start) }

// Stop is the time that has passed, and the CPU that the processes and this one used meanwhile.
func (m Meter) Stop() (took, all time.Duration, err error) {
	used, err := CPU(m.pids...)
	return m.Running(), used - m.used + own() - m.own, err
}

// Resident is a process's resident memory and the part of it that is not a file's pages, in bytes.
func Resident(pid int) (all, anonymous uint64, err error) {
	if all, err = status(pid, "VmRSS:"); err != nil {
		return 0, 0, err
	}
	anonymous, err = status(pid, "RssAnon:")
	return all, anonymous, err
}

// status is a field of proc_pid_status(5) that is in KiB, in bytes.
func status(pid int, field string) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			kib, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no %s", pid, field)
}
