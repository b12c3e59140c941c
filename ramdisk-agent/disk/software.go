package disk

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/ramdisk-agent/machine"
)

// Software is a Host whose disks are files. A disk's file outlives the process, so Flush has nothing to do.
type Software struct{ spec []machine.Disk }

// NewSoftware is the host of a software machine; it makes the files that are absent.
func NewSoftware(spec []machine.Disk) (*Software, error) {
	for _, d := range spec {
		f, err := os.OpenFile(d.Path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fault.New(fault.NotFound, "open disk file", "%w", err)
		}
		st, err := f.Stat()
		if err == nil && st.Size() == 0 {
			err = f.Truncate(d.SizeBytes)
		} else if err == nil && d.SizeBytes != 0 && st.Size() != d.SizeBytes {
			err = fmt.Errorf("%s has %d bytes, not size_bytes %d", d.Path, st.Size(), d.SizeBytes)
		}
		f.Close()
		if err != nil {
			return nil, fault.New(fault.Invalid, "prepare disk file", "%w", err)
		}
	}
	return &Software{spec: spec}, nil
}

// Disks implements Host.
func (s *Software) Disks() ([]Info, error) {
	out := make([]Info, 0, len(s.spec))
	for i, d := range s.spec {
		st, err := os.Stat(d.Path)
		if err != nil {
			return nil, fault.New(fault.Unavailable, "list disks", "%w", err)
		}
		out = append(out, Info{Name: d.Name, Path: d.Path, ByPath: fmt.Sprintf("software-%d", i), WWN: d.WWN, Serial: d.Serial,
			Vendor: d.Vendor, Model: d.Model, Size: st.Size() / d.Sector * d.Sector, Sector: d.Sector, Rotational: d.Rotational,
			Discard: d.Discard != machine.DiscardRefuse, ReadOnly: d.ReadOnly, Removable: d.Removable, Simulated: true})
	}
	identify(out)
	return out, nil
}

// Undriven implements Host: a software machine has none.
func (s *Software) Undriven() ([]Controller, error) { return nil, nil }

// Open implements Host. The file is locked, as a device opened with O_EXCL is.
func (s *Software) Open(want Info) (Disk, error) {
	have, err := Find(s, want.ID)
	if err != nil {
		return nil, err
	}
	for _, d := range s.spec {
		if d.Path == have.Path {
			return openFile(d, have)
		}
	}
	return nil, fault.New(fault.NoMatch, "open disk", "%s is gone", want)
}

func openFile(spec machine.Disk, info Info) (Disk, error) {
	f, err := os.OpenFile(spec.Path, os.O_RDWR, 0)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "open disk", "%w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fault.New(fault.Busy, "open disk", "%s is in use: %w", spec.Path, err)
	}
	d := &fileDisk{f: f, info: info, spec: spec}
	if spec.WriteLog != "" {
		if d.log, err = os.OpenFile(spec.WriteLog, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
			f.Close()
			return nil, fault.New(fault.Unavailable, "open write log", "%w", err)
		}
	}
	return d, nil
}

type fileDisk struct {
	f    *os.File
	info Info
	spec machine.Disk
	log  *os.File

	mu    sync.Mutex // guards the fields below
	busy  time.Time  // when the disk is done with what it was given, at its write rate
	given int64      // bytes to write since it was opened
}

// gatePoll is how often a held write looks whether its gate is open.
const gatePoll = 5 * time.Millisecond

func (d *fileDisk) check(op string, p []byte, off int64) error {
	if !aligned(p, off, d.info.Sector) || off < 0 || off+int64(len(p)) > d.info.Size {
		return fault.New(fault.Internal, op, "%d bytes at %d are not whole sectors of %s", len(p), off, d.info)
	}
	return nil
}

func (d *fileDisk) ReadAt(p []byte, off int64) (int, error) {
	if err := d.check("read disk", p, off); err != nil {
		return 0, err
	}
	n, err := d.f.ReadAt(p, off)
	if err != nil {
		return n, fault.New(fault.Unavailable, "read disk", "%w", err)
	}
	return n, nil
}

func (d *fileDisk) WriteAt(p []byte, off int64) (int, error) {
	if err := d.check("write disk", p, off); err != nil {
		return 0, err
	}
	d.pass(int64(len(p)))
	if err := d.note("write", off, int64(len(p))); err != nil {
		return 0, err
	}
	d.wait(int64(len(p)))
	n, err := d.f.WriteAt(p, off)
	if err != nil {
		return n, fault.New(fault.Unavailable, "write disk", "%w", err)
	}
	return n, nil
}

// pass holds a write at the gate, if there is one and the disk was given as much as it lets through.
func (d *fileDisk) pass(n int64) {
	if d.spec.WriteGate == "" {
		return
	}
	d.mu.Lock()
	d.given += n
	given := d.given
	d.mu.Unlock()
	for {
		text, err := os.ReadFile(d.spec.WriteGate)
		if err != nil {
			return // open
		}
		through, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil || given <= through {
			return
		}
		time.Sleep(gatePoll)
	}
}

// wait lets the disk be as slow as its description says.
func (d *fileDisk) wait(n int64) {
	if d.spec.WriteRate == 0 {
		return
	}
	d.mu.Lock()
	now := time.Now()
	if d.busy.Before(now) {
		d.busy = now
	}
	d.busy = d.busy.Add(time.Duration(n) * time.Second / time.Duration(d.spec.WriteRate))
	until := d.busy
	d.mu.Unlock()
	time.Sleep(until.Sub(now))
}

func (d *fileDisk) Discard(off, n int64) error {
	if off < 0 || n < 0 || off+n > d.info.Size || off%d.info.Sector != 0 || n%d.info.Sector != 0 {
		return fault.New(fault.Internal, "discard", "%d bytes at %d are not whole sectors of %s", n, off, d.info)
	}
	if n == 0 {
		return nil
	}
	switch d.spec.Discard {
	case machine.DiscardRefuse:
		return fault.New(fault.Unsupported, "discard", "%s does not discard", d.info.Name)
	case machine.DiscardLies:
		return nil
	}
	if err := d.note("discard", off, n); err != nil {
		return err
	}
	const keepSize, punch = 0x01, 0x02 // FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE
	if err := unix.Fallocate(int(d.f.Fd()), keepSize|punch, off, n); err != nil {
		return fault.New(fault.Unsupported, "discard", "%w", err)
	}
	return nil
}

func (d *fileDisk) note(what string, off, n int64) error {
	if d.log == nil {
		return nil
	}
	if _, err := fmt.Fprintf(d.log, "%s %d %d\n", what, off, n); err != nil {
		return fault.New(fault.Unavailable, "write the write log", "%w", err)
	}
	return nil
}

func (d *fileDisk) Flush() error { return nil }

func (d *fileDisk) Close() error {
	if d.log != nil {
		d.log.Close()
	}
	return d.f.Close()
}
