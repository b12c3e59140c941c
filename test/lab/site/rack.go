package site

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/farrier-project/farrier/test/lab/netns"
	"github.com/farrier-project/farrier/test/lab/osimage"
	"github.com/farrier-project/farrier/test/lab/qemu"
	"github.com/farrier-project/farrier/test/lab/redfish"
)

// RackAddress is the bridge's: that of the coordinators, the BMCs and the server of images.
const RackAddress = rackHost + "/24"

const (
	rackHost   = "10.77.0.1"
	rackPrefix = "10.77.0.0/24"
	bootROM    = "/usr/lib/ipxe/undionly.kpxe"
	vmDisk     = 256 << 20 // bytes
)

// Rack is a network with machines that QEMU emulates: real firmware, a real kernel. The agents have an address each on
// it, in a namespace of their own; they answer DHCP, TFTP and HTTP at the usual ports.
type Rack struct {
	Net     *netns.Rack // with RackAddress, of this process's namespace
	Kernel  string      // vmlinuz for the ramdisk and the images
	Modules string      // lib/modules/VERSION of the same kernel
	Spare   int64       // bytes of a second disk, with sectors of 4096 bytes, that keeps what it is told to discard; 0: none
}

// VM is an emulated machine and its BMC.
type VM struct {
	*qemu.Machine
	BMC   *redfish.BMC
	Name  string
	UUID  string
	MAC   string
	IP    netip.Addr
	Disk  string // the file that is the disk
	Spare string // the file that is the second disk, or ""
}

// OS is an image that boots from a disk, served over HTTP.
type OS struct {
	osimage.Image
	Nonce string
	URL   string
}

// OS makes an image with the nonce, to be deployed on VMs.
func (s *Site) OS(nonce string) (*OS, error) {
	if s.cfg.Rack == nil {
		return nil, errors.New("simulated machines execute no operating system")
	}
	img, err := osimage.Build(osimage.Options{Dir: s.cfg.Images, Kernel: s.cfg.Rack.Kernel, Modules: s.cfg.Rack.Modules, Nonce: nonce})
	if err != nil {
		return nil, err
	}
	return &OS{Image: *img, Nonce: nonce, URL: s.imageBase + filepath.Base(img.Path)}, nil
}

// rackPlace gives an agent a namespace with an address on the rack.
func (s *Site) rackPlace(i int) (agentPlace, error) {
	ip := netip.AddrFrom4([4]byte{10, 77, 0, byte(2 + i)})
	host, err := s.cfg.Rack.Net.Host(fmt.Sprintf("agent-%c", 'a'+i), ip.String()+"/24")
	if err != nil {
		return agentPlace{}, err
	}
	s.hosts = append(s.hosts, host)
	yaml := fmt.Sprintf(`http: {listen: "%[1]s:8080"}
ramdisk: {listen: "%[1]s:8443"}
dhcp:
  listen: ":67"
  interface: eth0
  server: %[1]s
  router_advertisements: true
  subnets:
    - {prefix: %[2]s, pool: ["10.77.0.%[3]d-10.77.0.%[4]d"]}
tftp: {listen: ":69"}
boot:
  kernel: %[5]s
  ramdisk: %[6]s
  programs: {undionly.kpxe: %[7]s}
%[8]s`, ip, rackPrefix, 100+10*i, 109+10*i, s.kernel(), s.ramdisk(), bootROM, s.cfg.AgentSettings)
	return agentPlace{yaml: yaml, start: host.Start}, nil
}

func (s *Site) startVMs() error {
	for i := range s.cfg.Machines {
		if err := s.startVM(i); err != nil {
			return err
		}
	}
	return nil
}

func (s *Site) startVM(i int) error {
	name, tap := fmt.Sprintf("m%d", i+1), fmt.Sprintf("tap%d", i+1)
	vm := &VM{Name: name, UUID: fmt.Sprintf("77000000-0000-4000-8000-0000000001%02x", 11+i), MAC: fmt.Sprintf("52:54:00:77:01:%02x", 11+i),
		IP: netip.AddrFrom4([4]byte{10, 77, 0, byte(11 + i)})}
	if err := s.cfg.Rack.Net.Tap(tap); err != nil {
		return err
	}
	dir := filepath.Join(s.cfg.Dir, "machines")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	vm.Disk = filepath.Join(dir, name+".raw")
	if err := blank(vm.Disk, vmDisk); err != nil {
		return err
	}
	if s.cfg.Rack.Spare > 0 {
		vm.Spare = filepath.Join(dir, name+".spare.raw")
		if err := blank(vm.Spare, s.cfg.Rack.Spare); err != nil {
			return err
		}
	}
	var err error
	vm.Machine, err = qemu.New(qemu.Config{Dir: dir, Name: name, UUID: vm.UUID, Serial: fmt.Sprintf("EMU%04d", i+1), MAC: vm.MAC, Tap: tap,
		Disk: vm.Disk, DiskSerial: fmt.Sprintf("EMU%04d-0", i+1), DiskBytes: vmDisk,
		Spare: vm.Spare, SpareBytes: uint64(s.cfg.Rack.Spare)})
	if err != nil {
		return err
	}
	vm.BMC, err = redfish.Start(redfish.Config{Address: rackHost + ":0", Machine: vm.Machine, User: "admin", Password: "password-of-" + name})
	if err != nil {
		return errors.Join(err, vm.Machine.Close())
	}
	s.VMs = append(s.VMs, vm)
	return nil
}

func blank(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}
