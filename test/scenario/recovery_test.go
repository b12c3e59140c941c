package scenario

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/test/lab/site"
)

// TestRecovery: all coordinators and their data are gone, an archive and the key file are left. The cluster is made anew
// from these; agents and operators come back with the certificates that they have, secrets open, no token is met again,
// and other coordinators can join.
func TestRecovery(t *testing.T) {
	k := start(t, 1)
	m := k.Machines[0]
	k.enrol(m)
	k.verb(m.Name, "manage")
	k.reach(m.Name, "manageable", nil)
	archive, keys := filepath.Join(k.dir, "archive"), filepath.Join(k.dir, "kept.keys")
	k.done("coordinator", "snapshot", "save", archive)
	late := k.granted(m.Name) // the archive does not know of it

	first := k.Coordinators[0]
	var at struct{ API, Raft, Rack string }
	if err := first.Addresses(&at); err != nil {
		t.Fatal(err)
	}
	k.lose(keys)
	other := filepath.Join(k.dir, "other.keys")
	if err := os.WriteFile(other, []byte(`{"current":1,"keys":{"1":"`+strings.Repeat("A", 43)+`="}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(k.dir, first.Name, "config.yaml")
	old, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitN(string(old), "\n", 2) // the first is listen: with chosen ports
	yaml := fmt.Sprintf("listen: {api: %q, raft: %q, rack: %q}\n%skey_file: %s\n", at.API, at.Raft, at.Rack, lines[1], keys)
	if err := os.WriteFile(config, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	init := []string{"init", "--config", config, "--operator-dir", filepath.Join(k.dir, "operator-again"), "--from-archive", archive}
	if said := k.daemon("farrier-coordinator", append(init, "--key-file", other)...); !strings.Contains(said, "--key-file") {
		t.Errorf("with another cluster's keys it says %q", said)
	}
	out, err := exec.CommandContext(k.ctx(), filepath.Join(binaries, "farrier-coordinator"), init...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "1 nodes") {
		t.Fatalf("init: %v\n%s", err, out)
	}
	k.restart([]*site.Process{first})

	if err := k.WaitAgents(k.ctx(), 2); err != nil { // with the certificates and the addresses of before
		t.Fatal(err)
	}
	if token := k.granted(m.Name); token <= late {
		t.Errorf("token %d was granted by the lost cluster, which went to %d", token, late)
	}
	if _, err := k.Client.Nodes.SetPowerState(k.ctx(), &farrierv1.SetPowerStateRequest{Node: m.Name, Target: "power on"}); err != nil {
		t.Fatal(client.Fault(err))
	}
	if n, err := k.Client.Follow(k.ctx(), m.Name, func(*farrierv1.Node) {}); err != nil || n.GetPowerState() != "power on" {
		t.Errorf("power is %q, %v: %s", n.GetPowerState(), client.Fault(err), n.GetLastError())
	}
	k.done("--config", filepath.Join(k.dir, "operator-again"), "node", "list")

	second := k.Coordinators[1]
	token := strings.TrimSpace(k.done("coordinator", "token", second.Name).out)
	joined, err := exec.CommandContext(k.ctx(), filepath.Join(binaries, "farrier-coordinator"), "join", "--config", filepath.Join(k.dir, second.Name, "config.yaml"), "--token", token).CombinedOutput()
	if err != nil {
		t.Fatalf("join: %v\n%s", err, joined)
	}
	k.restart([]*site.Process{second})
	k.until("the second coordinator has a vote", func(ctx context.Context) bool {
		res, err := k.Client.Cluster.GetCluster(ctx, &farrierv1.GetClusterRequest{})
		return err == nil && len(res.GetMembers()) == 2 && res.GetMembers()[0].GetVoter() && res.GetMembers()[1].GetVoter()
	})
}

// lose ends all coordinators and removes all that they had on their disks; of the first the sealing keys are kept.
func (k *kit) lose(keys string) {
	k.t.Helper()
	for i, p := range k.Coordinators {
		p.Kill()
		data := filepath.Join(k.dir, p.Name, "data")
		if i == 0 {
			if err := os.Rename(data+".keys", keys); err != nil {
				k.t.Fatal(err)
			}
		}
		for _, path := range []string{data, data + ".keys"} {
			if err := os.RemoveAll(path); err != nil {
				k.t.Fatal(err)
			}
		}
	}
}

// granted takes the node's lock for a moment and answers its token.
func (k *kit) granted(node string) uint64 {
	k.t.Helper()
	res, err := k.Client.Locks.AcquireLock(k.ctx(), &farrierv1.AcquireLockRequest{Node: node, Purpose: "to see its token"})
	if err == nil {
		_, err = k.Client.Locks.ReleaseLock(k.ctx(), &farrierv1.ReleaseLockRequest{Node: node, Token: res.GetLock().GetToken()})
	}
	if err != nil {
		k.t.Fatal(client.Fault(err))
	}
	return res.GetLock().GetToken()
}
