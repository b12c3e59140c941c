package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/farrier-project/farrier/test/lab"
)

const binary = "qemu-system-x86_64"

// Config describes one machine. All fields but Spare and MemoryMiB are needed.
type Config struct {
	Dir        string // for the QMP socket, the serial log and screenshots
	Name       string
	UUID       string
	Serial     string
	MAC        string
	Tap        string
	Disk       string // raw image file; discard really discards
	DiskSerial string
	DiskBytes  uint64
	Spare      string // raw image file of a second disk, or "": sectors of 4096 bytes; a discard succeeds and changes nothing
	SpareBytes uint64
	MemoryMiB  int // default 384
}

// Machine is one emulated machine, off at first. It is safe for concurrent use, but calls that change power or boot come
// one at a time, as from a BMC.
type Machine struct {
	cfg    Config
	serial *serialLog

	mu   sync.Mutex
	boot lab.Boot
	run  *run // nil when off
	runs int
}

var _ lab.Machine = (*Machine)(nil)

// run is one life of the QEMU process.
type run struct {
	cmd  *exec.Cmd
	qmp  *qmp
	done chan struct{} // closed when the process is gone
}

// New makes a machine without starting it. It fails when QEMU is not installed.
func New(cfg Config) (*Machine, error) {
	if _, err := exec.LookPath(binary); err != nil {
		return nil, fmt.Errorf("%w: run `make setup`", err)
	}
	if cfg.MemoryMiB == 0 {
		cfg.MemoryMiB = 384
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	log, err := newSerialLog(filepath.Join(cfg.Dir, cfg.Name+".serial.log"))
	if err != nil {
		return nil, err
	}
	return &Machine{cfg: cfg, serial: log, boot: lab.Boot{Target: lab.BootNone}}, nil
}

// Close powers off and closes the serial log.
func (m *Machine) Close() error { return errors.Join(m.PowerOff(), m.serial.close()) }

// Board implements lab.Machine.
func (m *Machine) Board() lab.Board {
	b := lab.Board{UUID: m.cfg.UUID, Serial: m.cfg.Serial, Manufacturer: "Farrier Lab", Model: "QEMU (emulated)",
		MACs: []string{m.cfg.MAC}, MemoryBytes: uint64(m.cfg.MemoryMiB) << 20, CPUs: 1,
		Disks: []lab.Disk{{Name: "vda", Serial: m.cfg.DiskSerial, Model: "virtio", Bytes: m.cfg.DiskBytes}}}
	if m.cfg.Spare != "" {
		b.Disks = append(b.Disks, lab.Disk{Name: "vdb", Serial: m.spareSerial(), Model: "virtio", Bytes: m.cfg.SpareBytes})
	}
	return b
}

func (m *Machine) spareSerial() string { return m.cfg.DiskSerial + "-spare" }

// Boot implements lab.Machine.
func (m *Machine) Boot() lab.Boot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.boot
}

// SetBoot implements lab.Machine. It takes effect at the next start.
func (m *Machine) SetBoot(b lab.Boot) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.boot = b
	return nil
}

// Powered implements lab.Power.
func (m *Machine) Powered() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.poweredLocked()
}

func (m *Machine) poweredLocked() bool {
	if m.run == nil {
		return false
	}
	select {
	case <-m.run.done:
		return false
	default:
		return true
	}
}

// PowerOn implements lab.Power: it starts QEMU. With a network override the machine boots from its card's ROM, once or
// always; otherwise from the disk.
func (m *Machine) PowerOn() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.poweredLocked() {
		return nil
	}
	order := "order=c"
	switch {
	case m.boot.Target == lab.BootPXE && m.boot.Once:
		order = "order=c,once=n"
	case m.boot.Target == lab.BootPXE:
		order = "order=n"
	}
	m.runs++
	socket := filepath.Join(m.cfg.Dir, fmt.Sprintf("%s.%d.qmp", m.cfg.Name, m.runs))
	cmd := exec.Command(binary, m.args(order, socket)...)
	stderr, err := os.OpenFile(filepath.Join(m.cfg.Dir, m.cfg.Name+".qemu.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer stderr.Close()
	cmd.Stderr, cmd.Stdout = stderr, m.serial
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := startOnStayingThread(cmd); err != nil {
		return fmt.Errorf("start %s: %w", binary, err)
	}
	r := &run{cmd: cmd, done: make(chan struct{})}
	gone := make(chan struct{})
	go func() {
		_ = cmd.Wait() // its log says why it ended; a guest that powers off ends it with status 0
		close(r.done)
		<-gone
		if r.qmp != nil {
			r.qmp.close()
		}
	}()
	defer close(gone) // r.qmp is what it stays
	if m.boot.Once {
		m.boot = lab.Boot{Target: lab.BootNone}
	}
	m.run = r
	m.serial.mark(fmt.Sprintf("--- power on (%s) ---", order))
	if r.qmp, err = dialQMP(socket, r.done); err != nil {
		_ = cmd.Process.Kill()
		<-r.done
		return fmt.Errorf("talk to %s: %w (see %s)", binary, err, stderr.Name())
	}
	return nil
}

// args is the command line: -cpu max has RDRAND, without which early getrandom never returns. The chipset's own SATA
// controller is off: Debian's cloud kernel has no driver for it.
func (m *Machine) args(order, socket string) []string {
	c := m.cfg
	args := []string{"-name", c.Name, "-machine", "q35,accel=tcg,sata=off", "-cpu", "max", "-m", fmt.Sprint(c.MemoryMiB), "-smp", "1",
		"-display", "none", "-vga", "std", "-nodefaults", "-no-user-config", "-serial", "stdio",
		"-uuid", c.UUID,
		"-smbios", fmt.Sprintf("type=1,manufacturer=Farrier Lab,product=QEMU,serial=%s,uuid=%s", c.Serial, c.UUID),
		"-drive", "file=" + c.Disk + ",if=none,id=d0,format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap",
		"-device", "virtio-blk-pci,drive=d0,serial=" + c.DiskSerial,
		"-netdev", "tap,id=n0,ifname=" + c.Tap + ",script=no,downscript=no",
		"-device", "virtio-net-pci,netdev=n0,mac=" + c.MAC,
		"-boot", order, "-qmp", "unix:" + socket + ",server=on,wait=off"}
	if c.Spare != "" {
		args = append(args, "-drive", "file="+c.Spare+",if=none,id=d1,format=raw,cache=unsafe,discard=ignore",
			"-device", "virtio-blk-pci,drive=d1,logical_block_size=4096,physical_block_size=4096,serial="+m.spareSerial())
	}
	return args
}

// PowerOff implements lab.Power: at once, and nothing runs when it returns.
func (m *Machine) PowerOff() error {
	m.mu.Lock()
	r := m.run
	on := m.poweredLocked()
	m.mu.Unlock()
	if !on {
		return nil
	}
	m.serial.mark("--- power off ---")
	if r.qmp == nil || r.qmp.execute("quit", nil) != nil {
		_ = r.cmd.Process.Kill()
	}
	select {
	case <-r.done:
	case <-time.After(5 * time.Second):
		_ = r.cmd.Process.Kill()
		<-r.done
	}
	return nil
}

// SoftOff implements lab.Power: an ACPI power button.
func (m *Machine) SoftOff() error { return m.command("system_powerdown", nil) }

// Reset implements lab.Power.
func (m *Machine) Reset() error {
	m.mu.Lock()
	pending := m.boot.Target == lab.BootPXE
	m.mu.Unlock()
	if pending { // the boot order of a running QEMU is fixed
		return errors.Join(m.PowerOff(), m.PowerOn())
	}
	m.serial.mark("--- reset ---")
	return m.command("system_reset", nil)
}

func (m *Machine) command(name string, args map[string]any) error {
	m.mu.Lock()
	r, on := m.run, m.poweredLocked()
	m.mu.Unlock()
	if !on {
		return errors.New("the machine is off")
	}
	return r.qmp.execute(name, args)
}

// Screenshot writes the screen as PNG.
func (m *Machine) Screenshot(path string) error {
	return m.command("screendump", map[string]any{"filename": path, "format": "png"})
}

// WaitSerial waits until the serial console has printed the text since the machine was made, and returns the line.
func (m *Machine) WaitSerial(ctx context.Context, text string) (string, error) {
	return m.serial.wait(ctx, text)
}

// SerialLog is the path of the serial log with time stamps.
func (m *Machine) SerialLog() string { return m.serial.path }

// startOnStayingThread starts cmd from a thread that lives until the command's end: Pdeathsig fires when the starting
// thread ends, not only when the process does.
func startOnStayingThread(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		for cmd.Process.Signal(syscall.Signal(0)) == nil {
			time.Sleep(200 * time.Millisecond)
		}
	}()
	return <-started
}
