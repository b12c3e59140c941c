// Package netns makes a rack's network out of nothing: namespaces of our own with a bridge, taps for QEMU machines and a
// namespace for each agent. It needs no root: the program runs itself again in a user namespace. Nothing leaves it.
package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const insideEnv = "FARRIER_INSIDE_NETNS"

// stopWait is how long the program in the namespaces may take to end when it is asked to.
const stopWait = 8 * time.Second

// Enter runs the program again in new user, mount and network namespaces and returns its exit status and inside false;
// in the new process it returns inside true. Call it first thing in main or TestMain. When ctx ends the new process gets
// SIGTERM, and is killed if that does not end it.
func Enter(ctx context.Context) (inside bool, status int, err error) {
	if os.Getenv(insideEnv) != "" {
		return true, 0, nil
	}
	self, err := os.Executable()
	if err != nil {
		return false, 1, err
	}
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopWait
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	runtime.LockOSThread() // Pdeathsig is about the thread that starts the child
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return false, exit.ExitCode(), nil
	}
	if err != nil && cmd.ProcessState != nil { // it ended in order when it was asked to
		return false, cmd.ProcessState.ExitCode(), nil
	}
	if err != nil {
		return false, 1, fmt.Errorf("run again in own namespaces: %w (kernel.unprivileged_userns_clone or user.max_user_namespaces may forbid it)", err)
	}
	return false, 0, nil
}

// Rack is a bridge in this process's network namespace.
type Rack struct{ bridge *netlink.Bridge }

// NewRack brings up loopback and the bridge br0 with the address, such as "10.77.0.1/24".
func NewRack(address string) (*Rack, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return nil, fmt.Errorf("bring up lo: %w", err)
	}
	off := false
	// An address of its own: the bridge would take that of a port, and change it with the ports, under hosts that know it.
	own := net.HardwareAddr{0x02, 0xfa, 0x77, 0x00, 0x00, 0x01}
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0", HardwareAddr: own}, MulticastSnooping: &off}
	if err := netlink.LinkAdd(br); err != nil {
		return nil, fmt.Errorf("add bridge: %w", err)
	}
	// A forwarding delay would swallow the first DHCP packets of a machine.
	if err := os.WriteFile("/sys/class/net/br0/bridge/forward_delay", []byte("0"), 0); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("set forward delay: %w", err)
	}
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		return nil, err
	}
	if err := netlink.AddrAdd(br, addr); err != nil {
		return nil, fmt.Errorf("address bridge: %w", err)
	}
	return &Rack{bridge: br}, netlink.LinkSetUp(br)
}

// Tap adds a tap on the bridge for one network card of a machine.
func (r *Rack) Tap(name string) error {
	tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP}
	if err := netlink.LinkAdd(tap); errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("add tap %s: %w (Debian's udev gives /dev/net/tun the mode 0666, which this host lacks: run as root, or chmod it)", name, err)
	} else if err != nil {
		return fmt.Errorf("add tap %s: %w", name, err)
	}
	if err := netlink.LinkSetMaster(tap, r.bridge); err != nil {
		return fmt.Errorf("put tap %s on the bridge: %w", name, err)
	}
	return netlink.LinkSetUp(tap)
}

// Host is a network namespace with one interface, eth0, on the rack's bridge.
type Host struct{ ns vns.NsHandle }

// Host makes one with the address, such as "10.77.0.2/24". name is at most 12 characters.
func (r *Rack) Host(name, address string) (*Host, error) {
	ns, err := newNS()
	if err != nil {
		return nil, fmt.Errorf("make namespace %s: %w", name, err)
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns))}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("add veth %s: %w", name, err)
	}
	if err := netlink.LinkSetMaster(veth, r.bridge); err != nil {
		return nil, fmt.Errorf("put %s on the bridge: %w", name, err)
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		return nil, err
	}
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return nil, fmt.Errorf("enter namespace %s: %w", name, err)
	}
	defer h.Close()
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		return nil, err
	}
	eth, err := h.LinkByName("eth0")
	if err != nil {
		return nil, err
	}
	if err := h.AddrAdd(eth, addr); err != nil {
		return nil, err
	}
	for _, name := range []string{"lo", "eth0"} {
		link, err := h.LinkByName(name)
		if err != nil {
			return nil, err
		}
		if err := h.LinkSetUp(link); err != nil {
			return nil, fmt.Errorf("bring up %s: %w", name, err)
		}
	}
	return &Host{ns: ns}, nil
}

// Start starts a command inside the host's namespace.
func (h *Host) Start(cmd *exec.Cmd) error {
	return inThread(func() error {
		if err := unix.Setns(int(h.ns), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter namespace: %w", err)
		}
		return cmd.Start()
	})
}

// Close lets go of the namespace; it ends with its last process.
func (h *Host) Close() error { return h.ns.Close() }

func newNS() (ns vns.NsHandle, err error) {
	err = inThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		ns, err = vns.GetFromPath("/proc/thread-self/ns/net")
		return err
	})
	return ns, err
}

// inThread runs f on a thread of its own, which ends with it, so that a changed namespace goes no further.
func inThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
		done <- f()
	}()
	return <-done
}
