package scenario

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/client"
	ramdisk "github.com/farrier-project/farrier/ramdisk-agent/machine"
	"github.com/farrier-project/farrier/test/lab/image"
	"github.com/farrier-project/farrier/test/lab/machine"
	"github.com/farrier-project/farrier/test/lab/site"
)

// patience bounds each wait for the work of a machine. Nothing is asserted of the time that it takes.
const patience = 3 * time.Minute

// The disks of the machines: large enough for the image, and slow enough for others to see it being written.
const (
	diskBytes = 512 << 20
	diskRate  = 150 << 20
	half      = 100 << 20 // bytes: in the middle of the image, which has about twice as many that are not zero, and of a wipe
	chunk     = 4 << 20
)

var binaries string // directory of the daemons; set once by TestMain

func TestMain(m *testing.M) {
	dir, done, err := site.Binaries()
	if err != nil {
		fmt.Fprintln(os.Stderr, "scenario:", err)
		os.Exit(1)
	}
	binaries = dir
	code := m.Run()
	done()
	os.Exit(code)
}

// kit is a site with the things that scenarios do to it.
type kit struct {
	*site.Site
	t   *testing.T
	dir string
}

// startSite brings up a site in a directory of its own, which ends with the test, and leaves its logs if that fails.
func startSite(t *testing.T, cfg site.Config) *kit {
	t.Helper()
	cfg.Dir, cfg.Bin = t.TempDir(), binaries
	s, err := site.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	k := &kit{Site: s, t: t, dir: cfg.Dir}
	t.Cleanup(func() {
		if t.Failed() {
			k.logs()
		}
		s.Close()
	})
	return k
}

// start brings up three coordinators, two agents of one group and machines with slow disks.
func start(t *testing.T, machines int) *kit {
	t.Helper()
	k := startSite(t, site.Config{Machines: machines, Machine: func(_ int, cfg *machine.Config) {
		cfg.DiskBytes = diskBytes
		cfg.Disk = ramdisk.Disk{Discard: ramdisk.DiscardRefuse, WriteRate: diskRate, WriteLog: filepath.Join(cfg.Dir, "writes.log"), WriteGate: filepath.Join(cfg.Dir, "gate")}
	}})
	k.settings("ramdisk_heartbeat", &farrierv1.Settings{RamdiskHeartbeat: seconds(1)})
	k.settings("ramdisk_silence", &farrierv1.Settings{RamdiskSilence: seconds(6)})
	k.settings("bmc_change_deadline", &farrierv1.Settings{BmcChangeDeadline: seconds(3)})
	return k
}

// logs prints the end of every log, for whoever reads the failure.
func (k *kit) logs() {
	for _, p := range append(append([]*site.Process(nil), k.Coordinators...), k.Agents...) {
		k.t.Logf("--- %s\n%s", p.Name, p.Tail(25))
	}
	for _, m := range k.Machines {
		k.t.Logf("--- console of %s\n%s", m.Name, site.Tail(m.ConsolePath(), 15))
	}
}

func (k *kit) ctx() context.Context {
	ctx, cancel := context.WithTimeout(k.t.Context(), patience)
	k.t.Cleanup(cancel)
	return ctx
}

// enrol creates the machine's node.
func (k *kit) enrol(m *site.Machine) {
	k.t.Helper()
	_, err := k.Client.Nodes.CreateNode(k.ctx(), &farrierv1.CreateNodeRequest{Node: &farrierv1.Node{
		Name: m.Name, Driver: "redfish", Group: "rack1", DriverInfo: m.BMC.DriverInfo(),
		Ports: []*farrierv1.Port{{Address: m.MAC, Ip: m.IP.String(), PxeEnabled: true}},
	}})
	if err != nil {
		k.t.Fatalf("create %s: %v", m.Name, client.Fault(err))
	}
}

// verb asks for a verb and fails the test when it is refused.
func (k *kit) verb(node, verb string) {
	k.t.Helper()
	req := &farrierv1.SetProvisionStateRequest{Node: node, Verb: verb}
	if verb == "active" {
		req.Deploy = k.deployArgs(node)
	}
	if _, err := k.Client.Nodes.SetProvisionState(k.ctx(), req); err != nil {
		k.t.Fatalf("%s %s: %v", verb, node, client.Fault(err))
	}
}

func (k *kit) deployArgs(node string) *farrierv1.DeployArgs {
	return &farrierv1.DeployArgs{Image: &farrierv1.Image{Url: k.ImageURL, Sha256: k.Image.SHA256, Format: "raw"},
		Hostname: node, UserData: []byte("#cloud-config\nhostname: " + node + "\n")}
}

// reach waits until the node's work is over and checks where it ended. seen, if not nil, is called on the way with each
// picture of the node.
func (k *kit) reach(node, want string, seen func(*farrierv1.Node)) *farrierv1.Node {
	k.t.Helper()
	if seen == nil {
		seen = func(*farrierv1.Node) {}
	}
	n, err := k.Client.Follow(k.ctx(), node, seen)
	if err != nil {
		k.t.Fatalf("follow %s: %v (it is %q, last error %q)", node, client.Fault(err), n.GetProvisionState(), n.GetLastError())
	}
	if n.GetProvisionState() != want {
		k.t.Fatalf("%s is %q instead of %q: %s", node, n.GetProvisionState(), want, n.GetLastError())
	}
	return n
}

// hold has the machine's disk stop in the middle of a long write until open is called.
func (k *kit) hold(m *site.Machine) (open func()) {
	k.t.Helper()
	gate := filepath.Join(filepath.Dir(m.DiskPath()), "gate")
	if err := os.WriteFile(gate, []byte(fmt.Sprint(half)), 0o600); err != nil {
		k.t.Fatal(err)
	}
	return func() { _ = os.Remove(gate) } // again: it is gone
}

// during runs act once, when the step is running and has done a part of its work, and returns what waits for act's end. The
// disk is held, so that the step cannot be over before.
func during(step string, act func(n *farrierv1.Node)) (seen func(*farrierv1.Node), wait func()) {
	var once sync.Once
	var wg sync.WaitGroup
	return func(n *farrierv1.Node) {
		f := n.GetFlow()
		if f.GetState() != "open" || int(f.GetCurrent()) >= len(f.GetSteps()) {
			return
		}
		if st := f.GetSteps()[f.GetCurrent()]; st.GetName() == step && st.GetProgress().GetDone() > 0 {
			once.Do(func() { wg.Go(func() { act(n) }) })
		}
	}, wg.Wait
}

func (k *kit) agent(name string) *site.Process {
	for _, p := range k.Agents {
		if p.Name == name {
			return p
		}
	}
	k.t.Errorf("no agent is called %q", name)
	return k.Agents[0]
}

func (k *kit) leader(ctx context.Context) *site.Process {
	res, err := k.Client.Cluster.GetCluster(ctx, &farrierv1.GetClusterRequest{})
	if err != nil {
		k.t.Errorf("find the leader: %v", client.Fault(err))
		return k.Coordinators[0]
	}
	for _, p := range k.Coordinators {
		if p.Name == res.GetLeader() {
			return p
		}
	}
	k.t.Errorf("no coordinator is called %q", res.GetLeader())
	return k.Coordinators[0]
}

// exact compares the machine's disk with the image once it has booted from it.
func (k *kit) exact(m *site.Machine) {
	k.t.Helper()
	if err := m.WaitState(k.ctx(), "disk"); err != nil {
		k.t.Fatal(err)
	}
	if _, err := image.CompareDisk(k.Image.Path, m.DiskPath()); err != nil {
		k.t.Errorf("%s: the disk is not the image: %v", m.Name, err)
	}
}

// writes is the machine's write log.
func (k *kit) writes(m *site.Machine) []string {
	k.t.Helper()
	f, err := os.Open(filepath.Join(filepath.Dir(m.DiskPath()), "writes.log"))
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		k.t.Fatal(err)
	}
	defer f.Close()
	var lines []string
	for s := bufio.NewScanner(f); s.Scan(); {
		lines = append(lines, s.Text())
	}
	return lines
}

// twice lists the chunks of the image that were written more than once. The first chunk and the last two are left out: the
// first MiB is written last, and the tables at both ends change when the backup header moves.
func (k *kit) twice(log []string) []int64 {
	k.t.Helper()
	written := map[int64]int64{}
	for _, line := range log {
		var what string
		var off, n int64
		if _, err := fmt.Sscanf(line, "%s %d %d", &what, &off, &n); err != nil {
			k.t.Fatalf("write log: %q: %v", line, err)
		}
		if what == "write" {
			written[off/chunk] += n
		}
	}
	info, err := os.Stat(k.Image.Path)
	if err != nil {
		k.t.Fatal(err)
	}
	var out []int64
	for c := int64(1); c < info.Size()/chunk-2; c++ {
		if written[c] > chunk {
			out = append(out, c)
		}
	}
	return out
}

func describe(n *farrierv1.Node) string {
	var b strings.Builder
	for _, s := range n.GetFlow().GetSteps() {
		fmt.Fprintf(&b, " %s=%s/%d", s.GetName(), s.GetState(), s.GetAttempt())
	}
	return b.String()
}
