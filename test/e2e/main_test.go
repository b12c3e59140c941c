//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/test/lab/netns"
	"github.com/farrier-project/farrier/test/lab/site"
)

func TestMain(m *testing.M) {
	inside, status, err := netns.Enter(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if !inside {
		os.Exit(status)
	}
	os.Exit(m.Run())
}

const (
	root       = "../.."          // of the checkout
	startWait  = 60 * time.Second // for all daemons
	workWait   = 4 * time.Minute  // for one verb: ten times what it takes
	beat       = 500 * time.Millisecond
	tailLines  = 12       // of each log, on failure
	spareBytes = 16 << 20 // of the machine's second disk: the image has no room on it
)

// rig is a running site and its directory.
type rig struct {
	*site.Site
	vm  *site.VM
	dir string
}

// start brings up a site with one machine. The test's end takes it down; what it wrote is kept if the test failed.
func start(t *testing.T) *rig {
	t.Helper()
	dir, keep := os.Getenv("E2E_DIR"), true
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "farrier-e2e-"); err != nil {
			t.Fatal(err)
		}
		keep = false
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() || keep {
			t.Logf("the serial log, the screen and the logs of all processes are kept in %s", dir)
			return
		}
		_ = os.RemoveAll(dir)
	})
	net, err := netns.NewRack(site.RackAddress)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startWait)
	defer cancel()
	bin, kernel := abs(t, "bin"), abs(t, ".cache/kernel/vmlinuz")
	if env := os.Getenv("FARRIER_BIN"); env != "" {
		bin = env
	}
	s, err := site.Start(ctx, site.Config{
		Dir: dir, Bin: bin, Rack: &site.Rack{Net: net, Kernel: kernel, Modules: abs(t, ".cache/kernel/modules"), Spare: spareBytes},
		OnStart: func(what string, took time.Duration) { t.Logf("%s: %.1f s", what, took.Seconds()) },
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Site: s, vm: s.VMs[0], dir: dir}
	t.Cleanup(func() {
		if t.Failed() {
			r.explain(t)
		}
		s.Close()
	})
	_, err = s.Client.Cluster.UpdateSettings(ctx, &farrierv1.UpdateSettingsRequest{
		Settings: &farrierv1.Settings{RamdiskHeartbeat: durationpb.New(beat)}, Mask: &fieldmaskpb.FieldMask{Paths: []string{"ramdisk_heartbeat"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// explain prints the node and the ends of the logs, and takes a picture of the screen.
func (r *rig) explain(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if r.vm.Powered() {
		if err := r.vm.Screenshot(filepath.Join(r.dir, "screen.png")); err != nil {
			t.Logf("no picture of the screen: %v", err)
		}
	}
	if res, err := r.Client.Nodes.GetNode(ctx, &farrierv1.GetNodeRequest{Node: r.vm.Name}); err != nil {
		t.Logf("no node: %v", err)
	} else {
		t.Logf("node: %s", protojson.Format(res.GetNode()))
	}
	for _, p := range append(append([]*site.Process(nil), r.Coordinators...), r.Agents...) {
		t.Logf("--- %s\n%s", p.LogPath, p.Tail(tailLines))
	}
	t.Logf("--- %s\n%s", r.vm.SerialLog(), site.Tail(r.vm.SerialLog(), tailLines))
	for _, q := range r.vm.BMC.Requests() {
		t.Logf("bmc: %s %s %s %q %d", q.At.Format("15:04:05.000"), q.Method, q.Path, q.Effect, q.Status)
	}
}

func abs(t *testing.T, path string) string {
	t.Helper()
	p, err := filepath.Abs(filepath.Join(root, path))
	if err == nil {
		_, err = os.Stat(p)
	}
	if err != nil {
		t.Fatalf("%v: run `make setup build`", err)
	}
	return p
}

// nonce is fresh in each run.
func nonce(t *testing.T) string {
	t.Helper()
	b := make([]byte, 8)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b)
}
