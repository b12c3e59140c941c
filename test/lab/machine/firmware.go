package machine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/farrier-project/farrier/test/lab"
	"github.com/farrier-project/farrier/test/lab/image"
)

// What the simulated board is.
const (
	manufacturer = "Farrier"
	model        = "Software machine (simulated)"
	diskModel    = "Simulated disk"
	memoryBytes  = 4 << 30
	cpus         = 2
)

// outcome is how something that ran on the machine ended.
type outcome uint8

const (
	powerOff outcome = iota + 1 // it cut the power
	reboot                      // it restarted the machine
	dead                        // it ended without either: nothing runs until somebody resets or powers off
)

var errNoBoot = errors.New("the rack gave an address and no boot program")

// run is the machine from power on to power off.
func (m *Machine) run(ctx context.Context, done chan struct{}, soft <-chan struct{}) {
	defer close(done)
	for ctx.Err() == nil {
		m.setState("firmware")
		switch m.firmware(ctx, m.takeBoot(), soft) {
		case reboot:
			m.tell("reboot", "by the ramdisk")
			continue
		case powerOff:
			m.mu.Lock()
			m.on, m.state = false, "off"
			m.count.PowerOffs++
			m.tell("power off", "by what ran on it")
			m.cancel = nil
			m.wake()
			m.mu.Unlock()
			return
		default:
			if ctx.Err() != nil {
				return
			}
			m.bump(func(c *Counters) { c.Dead++ })
			m.setState("dead")
			<-ctx.Done()
		}
	}
}

// firmware tries the boot devices in order: the network first if the override says so, then the disk.
func (m *Machine) firmware(ctx context.Context, b lab.Boot, soft <-chan struct{}) outcome {
	if b.Target == lab.BootPXE || b.Target == lab.BootHTTP {
		o, err := m.networkBoot(ctx, soft)
		if err == nil {
			return o
		}
		if ctx.Err() != nil {
			return dead
		}
		m.tell("dhcp", err.Error())
	}
	return m.diskBoot(ctx, soft)
}

// diskBoot "boots" the disk: the firmware wants a GPT, the payload its checksum.
func (m *Machine) diskBoot(ctx context.Context, soft <-chan struct{}) outcome {
	if err := image.CheckPayload(m.DiskPath()); err != nil {
		m.tell("dead", "no bootable disk: "+err.Error())
		return dead
	}
	m.bump(func(c *Counters) { c.DiskBoots++ })
	m.setState("disk")
	m.tell("disk boot", "the payload's checksum fits")
	select {
	case <-ctx.Done():
		return dead
	case <-soft:
		return powerOff
	}
}

// networkBoot is firmware PXE, then iPXE, then the ramdisk. An error means that it came to nothing.
func (m *Machine) networkBoot(ctx context.Context, soft <-chan struct{}) (outcome, error) {
	first, err := m.dhcp(ctx, false)
	if err != nil {
		return 0, err
	}
	if first.file == "" {
		return 0, errNoBoot
	}
	size, err := m.tftp(first)
	if err != nil {
		return 0, fmt.Errorf("boot program %s: %w", first.file, err)
	}
	m.tell("tftp", fmt.Sprintf("%s, %d bytes from %s", first.file, size, first.server))
	second, err := m.dhcp(ctx, true)
	if err != nil {
		return 0, err
	}
	if second.file == "" {
		return 0, errNoBoot
	}
	s := &ipxe{m: m, client: m.httpClient(), files: map[string][]byte{}}
	defer s.client.CloseIdleConnections()
	text, err := s.fetch(ctx, second.file, maxScript)
	if err != nil {
		return 0, fmt.Errorf("iPXE script: %w", err)
	}
	m.tell("script", second.file)
	return s.run(ctx, string(text), func() outcome { return m.startRamdisk(ctx, s, soft) })
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
