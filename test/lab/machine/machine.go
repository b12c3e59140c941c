package machine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	ramdisk "github.com/farrier-project/farrier/ramdisk-agent/machine"
	"github.com/farrier-project/farrier/test/lab"
)

// Config describes one machine.
type Config struct {
	Dir        string     // its own files: disk, console.log, what it boots
	Name       string     // for the log
	IP         netip.Addr // of 127.77.0.0/16: its address, and its relay's
	MAC        net.HardwareAddr
	UUID       string
	Serial     string
	DiskBytes  int64 // default 2 GiB, sparse
	DiskSerial string
	Disk       ramdisk.Disk   // how the disk behaves: discard, write rate, write log; size, path and serial are set here
	MoreDisks  []ramdisk.Disk // further disks, complete; they are made when the ramdisk first runs
	Helpers    []Helper       // the relay's helper addresses
	OnEvent    func(Event)
}

// Helper is one agent as the relay knows it.
type Helper struct {
	DHCP netip.AddrPort
	TFTP uint16 // port, on the address that DHCP names
}

// Event is one thing that the machine did, for people.
type Event struct {
	At      time.Time
	Machine string
	What    string // "power on", "dhcp", "tftp", "script", "kernel", "ramdisk", "disk boot", "power off", "dead"
	Detail  string
}

// Counters says what the machine went through.
type Counters struct {
	Starts     int // power ons and resets
	NetBoots   int // ramdisks started
	DiskBoots  int // payloads that were booted from the disk
	Dead       int // starts that ended with nothing to boot, or a ramdisk that died
	PowerOffs  int
	DHCPOffers int
}

// Machine is one software machine. It is safe for concurrent use.
type Machine struct {
	cfg Config

	unpacked [sha256.Size]byte // digest of the ramdisk whose init is in Dir; used by the run alone

	mu      sync.Mutex // guards the fields below
	boot    lab.Boot
	on      bool
	closed  bool
	cancel  context.CancelFunc // of the run, when on
	done    chan struct{}      // closed when the run has ended
	soft    chan struct{}      // closed to ask what runs to stop
	count   Counters
	waiters []chan struct{}
	process *os.Process // the ramdisk, while it runs
	state   string
}

// maxDisk bounds a disk file, in bytes.
const maxDisk = 1 << 40

// New makes a machine that is off, with an empty disk if it has none.
func New(cfg Config) (*Machine, error) {
	if cfg.DiskBytes == 0 {
		cfg.DiskBytes = 2 << 30
	}
	if cfg.DiskBytes < 1<<20 || cfg.DiskBytes > maxDisk || !cfg.IP.Is4() || len(cfg.MAC) != 6 {
		return nil, fmt.Errorf("machine %s: bad disk size, address or MAC", cfg.Name)
	}
	if cfg.DiskSerial == "" {
		cfg.DiskSerial = cfg.Serial + "-0"
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make machine directory: %w", err)
	}
	m := &Machine{cfg: cfg, boot: lab.Boot{Target: lab.BootNone}, state: "off"}
	f, err := os.OpenFile(m.DiskPath(), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("make disk: %w", err)
	}
	if err := errors.Join(f.Truncate(cfg.DiskBytes), f.Close()); err != nil {
		return nil, fmt.Errorf("make disk: %w", err)
	}
	return m, nil
}

// DiskPath is the file that is the disk.
func (m *Machine) DiskPath() string { return filepath.Join(m.cfg.Dir, "disk.raw") }

// ConsolePath is the log of what ran on the machine.
func (m *Machine) ConsolePath() string { return filepath.Join(m.cfg.Dir, "console.log") }

// Board implements lab.Machine.
func (m *Machine) Board() lab.Board {
	disks := []lab.Disk{{Name: "disk0", Serial: m.cfg.DiskSerial, Model: diskModel, Bytes: uint64(m.cfg.DiskBytes)}}
	for i, d := range m.cfg.MoreDisks {
		disks = append(disks, lab.Disk{Name: fmt.Sprintf("disk%d", i+1), Serial: d.Serial, Model: d.Model, Bytes: uint64(d.SizeBytes)})
	}
	return lab.Board{
		UUID: m.cfg.UUID, Serial: m.cfg.Serial, Manufacturer: manufacturer, Model: model,
		MACs: []string{m.cfg.MAC.String()}, MemoryBytes: memoryBytes, CPUs: cpus, Disks: disks,
	}
}

// Powered implements lab.Power.
func (m *Machine) Powered() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.on
}

// Boot implements lab.Machine.
func (m *Machine) Boot() lab.Boot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.boot
}

// SetBoot implements lab.Machine.
func (m *Machine) SetBoot(b lab.Boot) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.boot = b
	return nil
}

// PowerOn implements lab.Power.
func (m *Machine) PowerOn() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errors.New("the machine is closed")
	}
	if m.on {
		return nil
	}
	m.start()
	m.tell("power on", "")
	return nil
}

// start begins a run; the lock is held.
func (m *Machine) start() {
	ctx, cancel := context.WithCancel(context.Background())
	m.on, m.state, m.cancel, m.done, m.soft = true, "firmware", cancel, make(chan struct{}), make(chan struct{})
	go m.run(ctx, m.done, m.soft)
}

// takeBoot is the boot device of a start; a one-shot override is used up by it.
func (m *Machine) takeBoot() lab.Boot {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count.Starts++
	b := m.boot
	if b.Once {
		m.boot = lab.Boot{Target: lab.BootNone, Mode: b.Mode}
	}
	return b
}

// PowerOff implements lab.Power: it kills what runs and waits for its end.
func (m *Machine) PowerOff() error {
	m.stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.on {
		m.on, m.state = false, "off"
		m.count.PowerOffs++
		m.tell("power off", "")
		m.wake()
	}
	return nil
}

// stop ends the run, if there is one, and waits for it.
func (m *Machine) stop() {
	m.mu.Lock()
	cancel, done := m.cancel, m.done
	m.mu.Unlock()
	if cancel != nil {
		cancel()
		<-done
	}
}

// SoftOff implements lab.Power.
func (m *Machine) SoftOff() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.on {
		return nil
	}
	select {
	case <-m.soft:
	default:
		close(m.soft)
	}
	return nil
}

// Reset implements lab.Power.
func (m *Machine) Reset() error {
	if !m.Powered() {
		return errors.New("the machine is off")
	}
	m.stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errors.New("the machine is closed")
	}
	m.tell("reset", "")
	m.start()
	return nil
}

// Close powers the machine off for good.
func (m *Machine) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	return m.PowerOff()
}

// Counters is a copy.
func (m *Machine) Counters() Counters {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count
}

// State says what the machine is doing: "off", "firmware", "ramdisk", "disk" (the payload is booted), "dead".
func (m *Machine) State() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

// PID is the process id of the running ramdisk, 0 when none runs.
func (m *Machine) PID() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == nil {
		return 0
	}
	return m.process.Pid
}

// WaitState waits until State is one of want.
func (m *Machine) WaitState(ctx context.Context, want ...string) error {
	for {
		m.mu.Lock()
		state, ch := m.state, make(chan struct{})
		m.waiters = append(m.waiters, ch)
		m.mu.Unlock()
		for _, w := range want {
			if state == w {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("machine %s is in state %s: %w", m.cfg.Name, state, ctx.Err())
		case <-ch:
		}
	}
}

// wake tells the waiters; the lock is held.
func (m *Machine) wake() {
	for _, ch := range m.waiters {
		close(ch)
	}
	m.waiters = nil
}

func (m *Machine) setState(s string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = s
	m.wake()
}

func (m *Machine) bump(counter func(c *Counters)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	counter(&m.count)
}

// tell reports an event. OnEvent must not call the machine.
func (m *Machine) tell(what, detail string) {
	if m.cfg.OnEvent != nil {
		m.cfg.OnEvent(Event{At: time.Now(), Machine: m.cfg.Name, What: what, Detail: detail})
	}
}
