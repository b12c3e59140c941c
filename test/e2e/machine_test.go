//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/ramdisk-agent/fat"
	labimage "github.com/farrier-project/farrier/test/lab/image"
	"github.com/farrier-project/farrier/test/lab/osimage"
	"github.com/farrier-project/farrier/test/lab/site"
)

// TestMachine is the life of one machine. Each part stands on those before it.
func TestMachine(t *testing.T) {
	r := start(t)
	first, second := r.os(t), r.os(t)
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"enrol", r.enrol},
		{"manage", func(t *testing.T) { r.verb(t, "manage", "manageable", nil) }},
		{"inspect", r.inspect},
		{"provide", r.provide},
		{"deploy", func(t *testing.T) { r.deploy(t, first) }},
		{"undeploy", func(t *testing.T) { r.undeploy(t, first) }},
		{"deploy while agent and leader die", func(t *testing.T) { r.deployThroughDeaths(t, second) }},
	} {
		if !t.Run(part.name, part.run) {
			return
		}
	}
}

// image is an operating system and the user data that go on the machine together; both nonces are this run's.
type image struct {
	*site.OS
	userData string
}

func (r *rig) os(t *testing.T) image {
	t.Helper()
	img, err := r.OS(nonce(t))
	if err != nil {
		t.Fatal(err)
	}
	return image{OS: img, userData: nonce(t)}
}

func (r *rig) enrol(t *testing.T) {
	_, err := r.Client.Nodes.CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: &farrierv1.Node{
		Name: r.vm.Name, Driver: "redfish", Group: "rack1", DriverInfo: r.vm.BMC.DriverInfo(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Client.Ports.CreatePort(t.Context(), &farrierv1.CreatePortRequest{Port: &farrierv1.Port{
		Node: r.vm.Name, Address: r.vm.MAC, Ip: r.vm.IP.String(), PxeEnabled: true,
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// request asks for a verb.
func (r *rig) request(t *testing.T, verb string, args *farrierv1.DeployArgs) {
	t.Helper()
	if _, err := r.Client.Nodes.SetProvisionState(t.Context(), &farrierv1.SetProvisionStateRequest{Node: r.vm.Name, Verb: verb, Deploy: args}); err != nil {
		t.Fatal(err)
	}
}

// settle follows the node until its work is over, in the state that is wanted.
func (r *rig) settle(t *testing.T, want string) *farrierv1.Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), workWait)
	defer cancel()
	n, err := r.Client.Follow(ctx, r.vm.Name, func(*farrierv1.Node) {})
	if err != nil {
		t.Fatal(err)
	}
	if n.GetProvisionState() != want {
		t.Fatalf("the machine is %q instead of %q: %s", n.GetProvisionState(), want, n.GetLastError())
	}
	return n
}

func (r *rig) verb(t *testing.T, verb, want string, args *farrierv1.DeployArgs) *farrierv1.Node {
	t.Helper()
	r.request(t, verb, args)
	return r.settle(t, want)
}

// inspect has the ramdisk say what it found, and compares it with what QEMU was given.
func (r *rig) inspect(t *testing.T) {
	r.verb(t, "inspect", "manageable", nil)
	res, err := r.Client.Nodes.GetInventory(t.Context(), &farrierv1.GetInventoryRequest{Node: r.vm.Name})
	if err != nil {
		t.Fatal(err)
	}
	var found struct {
		System   struct{ UUID, Serial string }
		BootMode string `json:"boot_mode"`
		Disks    []struct {
			Serial string
			Size   uint64 `json:"size_bytes"`
		}
		NICs []struct {
			MAC, Driver, IPv4 string
			Carrier           bool
		}
	}
	if err := json.Unmarshal(res.GetInventoryJson(), &found); err != nil {
		t.Fatal(err)
	}
	board := r.vm.Board()
	if !strings.EqualFold(found.System.UUID, board.UUID) || found.System.Serial != board.Serial || found.BootMode != "bios" {
		t.Errorf("system %+v, boot mode %s; QEMU was given %s, %s, bios", found.System, found.BootMode, board.UUID, board.Serial)
	}
	if len(found.Disks) != len(board.Disks) {
		t.Fatalf("disks %+v; QEMU was given %+v", found.Disks, board.Disks)
	}
	for i, d := range board.Disks {
		if found.Disks[i].Serial != d.Serial || found.Disks[i].Size != d.Bytes {
			t.Errorf("disk %+v; QEMU was given %+v", found.Disks[i], d)
		}
	}
	if n := found.NICs; len(n) != 1 || n[0].MAC != r.vm.MAC || n[0].Driver != "virtio_net" || n[0].IPv4 != r.vm.IP.String() || !n[0].Carrier {
		t.Errorf("NICs %+v; QEMU was given a virtio NIC with %s, and DHCP gave it %s", n, r.vm.MAC, r.vm.IP)
	}
}

// provide cleans the machine: the first disk is discarded, the second says that it discards, keeps everything, and is found out.
func (r *rig) provide(t *testing.T) {
	if err := os.WriteFile(r.vm.Spare, bytes.Repeat([]byte("left by somebody"), spareBytes/16), 0o600); err != nil {
		t.Fatal(err)
	}
	n := r.verb(t, "provide", "available", nil)
	if w := n.GetWipe(); w.GetMethod() != "overwrite" || len(w.GetDisks()) != 2 || w.GetSampled() == 0 {
		t.Errorf("the record of the wipe is %v; wanted two disks, verified by samples, one of them overwritten", w)
	}
	ctx, cancel := context.WithTimeout(t.Context(), workWait)
	defer cancel()
	for i, method := range []string{"discard", "overwrite"} {
		if _, err := r.vm.WaitSerial(ctx, "disk=serial-"+r.vm.Board().Disks[i].Serial+" method="+method); err != nil {
			t.Error(err)
		}
	}
	r.spareIsEmpty(t)
}

func (r *rig) spareIsEmpty(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile(r.vm.Spare)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, make([]byte, spareBytes)) {
		t.Error("the second disk is not empty")
	}
}

// largeSectors puts on the second disk what a config drive is on sectors of 4096 bytes, for the machine's own system to mount.
func (r *rig) largeSectors(t *testing.T, img image) {
	t.Helper()
	drive, err := fat.Build("config-2", 4096, []fat.File{{Path: "openstack/latest/user_data", Data: []byte(img.userData)}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(r.vm.Spare, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(drive, 0)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func (img image) args() *farrierv1.DeployArgs {
	return &farrierv1.DeployArgs{
		Image:    &farrierv1.Image{Url: img.URL, Sha256: img.SHA256, Format: "raw"},
		Hostname: "booted", UserData: []byte(img.userData),
	}
}

func (r *rig) deploy(t *testing.T, img image) {
	r.largeSectors(t, img)
	r.booted(t, r.verb(t, "active", "active", img.args()), img)
	ctx, cancel := context.WithTimeout(t.Context(), workWait)
	defer cancel()
	if _, err := r.vm.WaitSerial(ctx, "FARRIER-OS image="+img.Nonce+" sectors=4096 spare="+img.userData); err != nil {
		t.Fatalf("the FAT on sectors of 4096 bytes was not read: %v", err)
	}
}

// booted waits until the machine's own system says, from its disk and its config drive, what it is.
func (r *rig) booted(t *testing.T, n *farrierv1.Node, img image) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), workWait)
	defer cancel()
	line, err := r.vm.WaitSerial(ctx, "FARRIER-OS image="+img.Nonce+" uuid=")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("FARRIER-OS image=%s uuid=%s user-data=%s", img.Nonce, n.GetId(), img.userData)
	if !strings.Contains(line, want) {
		t.Fatalf("the machine says %q instead of %q", line, want)
	}
	t.Log(want)
	compared, err := labimage.CompareDisk(img.Path, r.vm.Disk)
	if err != nil {
		t.Fatalf("the disk is not the image: %v", err)
	}
	t.Logf("the disk equals the image: %d MiB compared", compared>>20)
}

// undeploy shows that the image's markers are on the disk before, and none of them after.
func (r *rig) undeploy(t *testing.T, img image) {
	for _, when := range []struct {
		name string
		want int
	}{{"while deployed", osimage.Markers}, {"after undeploy", 0}} {
		if when.want == 0 {
			r.verb(t, "deleted", "available", nil)
		}
		found, err := osimage.CountMarkers(r.vm.Disk, img.Nonce)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d of %d markers in all sectors of the disk", when.name, found, osimage.Markers)
		if found != when.want {
			t.Fatalf("%s: %d markers are on the disk instead of %d", when.name, found, when.want)
		}
	}
	r.spareIsEmpty(t)
}

// deployThroughDeaths kills the owning agent and the leader while the image is being written.
func (r *rig) deployThroughDeaths(t *testing.T, img image) {
	r.request(t, "active", img.args())
	n := r.writing(t)
	agent, leader := r.process(t, n.GetAgent()), r.process(t, r.leader(t))
	for _, p := range []*site.Process{agent, leader} {
		t.Logf("kill -9 %s", p.Name)
		p.Kill()
	}
	killed := time.Now()
	for _, p := range []*site.Process{leader, agent} { // as a supervisor does
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	n = r.settle(t, "active")
	r.checkWrite(t, n, img, killed)
	r.booted(t, n, img)
}

// checkWrite shows that the kills fell into the image write and cost nothing but time.
func (r *rig) checkWrite(t *testing.T, n *farrierv1.Node, img image, killed time.Time) {
	t.Helper()
	if boots := n.GetFlow().GetBoots(); boots != 1 {
		t.Errorf("the machine was booted %d times: deaths of others must not restart it", boots)
	}
	write := step(n.GetFlow(), "write_image")
	if end := write.GetEndedAt().AsTime(); !end.After(killed) {
		t.Errorf("the image was written %s before the kills: they were not in the middle of it", killed.Sub(end))
	}
	count := func(fact string) int64 {
		n, err := strconv.ParseInt(write.GetFacts()[fact], 10, 64)
		if err != nil {
			t.Errorf("fact %s of write_image: %v", fact, err)
		}
		return n
	}
	if again := count("rewritten"); again != 0 {
		t.Errorf("%d bytes were written a second time", again)
	}
	if written, skipped := count("written"), count("skipped"); written+skipped != img.Size || skipped == 0 {
		t.Errorf("%d bytes written and %d found in place do not make the image's %d, which holds zeros", written, skipped, img.Size)
	}
}

func step(f *farrierv1.Flow, name string) *farrierv1.Step {
	for _, s := range f.GetSteps() {
		if s.GetName() == name {
			return s
		}
	}
	return nil
}

// writing waits until a part of the image, but not all of it, is on the disk, and returns the node.
func (r *rig) writing(t *testing.T) *farrierv1.Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), workWait)
	defer cancel()
	var seen *farrierv1.Node
	_, err := r.Client.Follow(ctx, r.vm.Name, func(n *farrierv1.Node) {
		f := n.GetFlow()
		if seen != nil || int(f.GetCurrent()) >= len(f.GetSteps()) {
			return
		}
		s := f.GetSteps()[f.GetCurrent()]
		if p := s.GetProgress(); s.GetName() == "write_image" && p.GetDone() > 0 && p.GetDone() < p.GetTotal() {
			t.Logf("write_image: %d of %d MiB", p.GetDone()>>20, p.GetTotal()>>20)
			seen = n
			cancel()
		}
	})
	if seen == nil {
		t.Fatalf("the image was never seen half written: %v", err)
	}
	if !errors.Is(err, context.Canceled) {
		t.Logf("follow: %v", err)
	}
	return seen
}

func (r *rig) leader(t *testing.T) string {
	t.Helper()
	res, err := r.Client.Cluster.GetCluster(t.Context(), &farrierv1.GetClusterRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return res.GetLeader()
}

func (r *rig) process(t *testing.T, name string) *site.Process {
	t.Helper()
	for _, p := range append(append([]*site.Process(nil), r.Coordinators...), r.Agents...) {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("there is no process %q", name)
	return nil
}
