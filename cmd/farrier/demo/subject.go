package demo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/test/lab/image"
	"github.com/farrier-project/farrier/test/lab/netns"
	"github.com/farrier-project/farrier/test/lab/redfish"
	"github.com/farrier-project/farrier/test/lab/site"
)

// subject is a machine as the story sees it.
type subject struct {
	name, mac string
	ip        netip.Addr
	bmc       *redfish.BMC
	console   string // path of its log
	image     *farrierv1.Image
	userData  string
	check     func(ctx context.Context) error // once it is active: does it run what was deployed?
}

// kind is what the machines are, for people.
func (d *demo) kind() string {
	if d.o.VM {
		return "emulated"
	}
	return "simulated"
}

func (d *demo) subjects() ([]*subject, error) {
	var out []*subject
	for _, m := range d.site.Machines {
		out = append(out, &subject{
			name: m.Name, mac: m.MAC, ip: m.IP, bmc: m.BMC, console: m.ConsolePath(), userData: "#cloud-config\nhostname: " + m.Name + "\n",
			image: &farrierv1.Image{Url: d.site.ImageURL, Sha256: d.site.Image.SHA256, Format: "raw"},
			check: func(ctx context.Context) error { return d.compare(ctx, m) },
		})
	}
	for _, vm := range d.site.VMs {
		began := time.Now()
		img, err := d.site.OS(nonce())
		if err == nil {
			d.line("lab", "start", "disk image of "+vm.Name+" built: a boot loader, Debian's kernel, busybox", time.Since(began))
		}
		if err != nil {
			return nil, fault.New(fault.Unavailable, "build image", "%w", err).WithHelp("run `make setup`")
		}
		out = append(out, &subject{
			name: vm.Name, mac: vm.MAC, ip: vm.IP, bmc: vm.BMC, console: vm.SerialLog(), userData: nonce(),
			image: &farrierv1.Image{Url: img.URL, Sha256: img.SHA256, Format: "raw"},
			check: func(ctx context.Context) error { return d.booted(ctx, vm, img) },
		})
	}
	return out, nil
}

// compare waits until the machine has booted its disk, then compares every byte of it with the image.
func (d *demo) compare(ctx context.Context, m *site.Machine) error {
	if err := m.WaitState(ctx, "disk"); err != nil {
		return err
	}
	began := time.Now()
	n, err := image.CompareDisk(d.site.Image.Path, m.DiskPath())
	if err != nil {
		return fmt.Errorf("the disk is not the image: %w", err)
	}
	d.line(m.Name, "disk", fmt.Sprintf("%s disk equals the image, byte for byte (%d MiB)", d.kind(), n>>20), time.Since(began))
	return nil
}

// booted waits until the system on the disk says on the serial console what it is.
func (d *demo) booted(ctx context.Context, vm *site.VM, img *site.OS) error {
	began := time.Now()
	line, err := vm.WaitSerial(ctx, "FARRIER-OS image="+img.Nonce)
	if err != nil {
		return err
	}
	d.line(vm.Name, "disk", "the emulated machine boots it, and says: "+strings.TrimSpace(line), time.Since(began))
	return nil
}

func nonce() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}

// newRack makes the network of emulated machines. The kernel is the one that make setup unpacked beside the binaries.
func newRack(bin string) (*site.Rack, error) {
	kernel := filepath.Join(filepath.Dir(bin), ".cache", "kernel")
	if _, err := os.Stat(filepath.Join(kernel, "vmlinuz")); err != nil {
		return nil, fault.New(fault.NotFound, "find kernel", "%w", err).WithHelp("run `make setup` as root, on Debian")
	}
	net, err := netns.NewRack(site.RackAddress)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "make network", "%w", err)
	}
	return &site.Rack{Net: net, Kernel: filepath.Join(kernel, "vmlinuz"), Modules: filepath.Join(kernel, "modules")}, nil
}
