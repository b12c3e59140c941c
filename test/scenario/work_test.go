package scenario

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/cmd/farrier/outcome"
	"github.com/farrier-project/farrier/test/lab/site"
)

// fails runs a command with --wait whose work fails: the command says so with its own status, the node keeps the reason
// with the step and the cause, and is at rest in the state of the failure.
func (k *kit) fails(m *site.Machine, state string, says []string, args ...string) *farrierv1.Node {
	k.t.Helper()
	k.farrier(append(args, "--wait")...).failed(k.t, append([]string{m.Name + " is " + strconv.Quote(state)}, says...)...)
	n := k.atRest(m.Name)
	if n.GetProvisionState() != state {
		k.t.Errorf("%s is %q instead of %q", m.Name, n.GetProvisionState(), state)
	}
	for _, text := range says {
		if !strings.Contains(n.GetLastError(), text) {
			k.t.Errorf("last error %q does not say %q", n.GetLastError(), text)
		}
	}
	return n
}

// credentials of the BMC: absent, wrong, and behind an address where nothing answers.
func (k *kit) credentials() {
	m := k.Machines[plain]
	right := m.BMC.DriverInfo()
	k.done("node", "create", "--name", m.Name, "--group", "rack1", "--mac", m.MAC+"="+m.IP.String(), "--driver-info", "redfish_address="+right["redfish_address"],
		"--driver-info", "redfish_pin="+right["redfish_pin"], "--driver-info", "redfish_username="+right["redfish_username"])
	k.sub("missing", func(k *kit) {
		k.farrier("node", "manage", m.Name).refused(k.t, outcome.ExitUsage, "redfish_password", "missing", "farrier node set "+m.Name)
		if n := k.atRest(m.Name); n.GetProvisionState() != "enroll" {
			k.t.Errorf("the node is %s", n.GetProvisionState())
		}
	})
	k.sub("wrong password", func(k *kit) {
		k.done("node", "set", m.Name, "--driver-info", "redfish_password=@"+k.file("password", 12))
		k.fails(m, "enroll", []string{"verify: management.verify", "password", "401"}, "node", "manage", m.Name)
	})
	k.sub("unreachable", func(k *kit) {
		k.done("node", "set", m.Name, "--driver-info", "redfish_address=https://127.0.0.1:9", "--driver-info", "redfish_password="+right["redfish_password"])
		k.fails(m, "enroll", []string{"verify: management.verify", "cannot be reached", "127.0.0.1:9"}, "node", "manage", m.Name)
	})
	k.sub("right", func(k *kit) {
		k.done("node", "set", m.Name, "--driver-info", "redfish_address="+right["redfish_address"])
		if info := k.node(m.Name).GetDriverInfo(); info["redfish_username"] != right["redfish_username"] || strings.Contains(info["redfish_password"], "password-of") {
			k.t.Errorf("driver info %v: a change of one key must leave the others, and a password must not be shown", info)
		}
		out := k.done("node", "manage", m.Name, "--wait")
		if out.out != m.Name+" is manageable\n" || strings.Contains(out.err, "\x1b") || !strings.Contains(out.err, m.Name+"  verifying  management.verify\n") {
			k.t.Errorf("manage --wait says %q, and on the way %q", out.out, out.err)
		}
		out = k.done("node", "provide", m.Name, "--wait", "-o", "json")
		var n struct {
			ProvisionState string `json:"provision_state"`
			LastError      string `json:"last_error"`
		}
		if out.decode(k.t, &n); n.ProvisionState != "available" || n.LastError != "" {
			k.t.Errorf("provide -o json says %+v", n)
		}
	})
}

// failed is refused for work that was waited for: what went before stands on standard error too.
func (a answer) failed(t *testing.T, says ...string) {
	t.Helper()
	at := strings.LastIndex("\n"+a.err, "\nfarrier: ")
	if at < 0 {
		t.Errorf("%s: status %d, and no error in %q", a, a.status, a.err)
		return
	}
	a.err = a.err[at:]
	a.refused(t, outcome.ExitWorkFailed, says...)
}

// images that are not what was said, or have no room.
func (k *kit) images() {
	m := k.Machines[plain]
	k.sub("wrong hash", func(k *kit) {
		before, starts := len(k.writes(m)), m.Counters().DiskBoots
		k.fails(m, "deploy failed", []string{"deploy: deploy.select_disk: fetch image", "SHA-256", k.Image.SHA256}, "node", "deploy", m.Name,
			"--image", k.ImageURL, "--sha256", strings.Repeat("ab", 32))
		if got := k.writes(m)[before:]; len(got) > 0 || m.Counters().DiskBoots != starts {
			k.t.Errorf("something was written of an image that is not the one: %v", got)
		}
	})
	k.sub("no such file", func(k *kit) {
		before := len(k.writes(m))
		k.fails(m, "deploy failed", []string{"deploy: deploy.select_disk: fetch image", "404"}, "node", "deploy", m.Name,
			"--image", k.ImageURL+".gone", "--sha256", strings.Repeat("cd", 32))
		if got := k.writes(m)[before:]; len(got) > 0 {
			k.t.Errorf("something was written of an image that is not there: %v", got)
		}
	})
	k.sub("right", func(k *kit) {
		out := k.done(k.deploy(m.Name, "--user-data", k.file("user-data", 100), "--wait")...)
		if out.out != m.Name+" is active\n" || strings.Contains(out.err, "\x1b") {
			k.t.Errorf("deploy --wait says %q", out.out)
		}
		for _, line := range []string{"  boot.wait_ramdisk\n", "  deploy.write_image\n", "  active\n"} {
			if strings.Count(out.err, line) != 1 {
				k.t.Errorf("%q is not there once in\n%s", line, out.err)
			}
		}
		k.exact(m)
	})
	k.sub("larger than the disk", func(k *kit) {
		m := k.Machines[small]
		k.done("node", "manage", m.Name, "--wait")
		k.done("node", "provide", m.Name, "--wait")
		before := len(k.writes(m))
		k.fails(m, "deploy failed", []string{"deploy: deploy.select_disk", "the image has", "128.0 MiB"}, k.deploy(m.Name)...)
		if got := k.writes(m)[before:]; len(got) > 0 {
			k.t.Errorf("something was written to a disk that is too small: %v", got)
		}
		k.done("node", "undeploy", m.Name, "--wait")
		if n := k.atRest(m.Name); n.GetProvisionState() != "available" {
			k.t.Errorf("after undeploy it is %s", n.GetProvisionState())
		}
	})
}

// more is the write log of the machine's second disk. It has been cleaned, so the log is not empty.
func (k *kit) more(m *site.Machine) string {
	k.t.Helper()
	log, err := os.ReadFile(filepath.Join(filepath.Dir(m.DiskPath()), "more.log"))
	if err != nil || len(log) == 0 {
		k.t.Fatalf("write log of the second disk: %d bytes, %v", len(log), err)
	}
	return string(log)
}

// disks that hints do not find, or not for certain.
func (k *kit) disks() {
	m := k.Machines[twin]
	k.done("node", "manage", m.Name, "--wait")
	k.done("node", "provide", m.Name, "--wait")
	before := len(k.writes(m))
	other := k.more(m)
	k.sub("none matches", func(k *kit) {
		k.fails(m, "deploy failed", []string{"deploy: deploy.select_disk", "no disk matches", `serial="NONE"`, "TWIN"},
			k.deploy(m.Name, "--root-device", "serial=NONE")...)
	})
	k.sub("two match", func(k *kit) {
		k.fails(m, "deploy failed", []string{"deploy: deploy.select_disk", "2 disks match", "TWIN"}, k.deploy(m.Name, "--root-device", "rotational=false")...)
	})
	if got := k.writes(m)[before:]; len(got) > 0 || k.more(m) != other {
		k.t.Errorf("something was written to a disk that nobody chose: %v", got)
	}
	k.sub("one matches", func(k *kit) {
		serial := m.Board().Disks[0].Serial
		k.done(k.deploy(m.Name, "--root-device", "serial="+serial, "--wait")...)
		k.exact(m)
		if k.more(m) != other {
			k.t.Error("the other disk was touched")
		}
		if id := k.node(m.Name).GetInstance().GetDiskId(); !strings.Contains(id, serial) {
			k.t.Errorf("the node says disk %q", id)
		}
	})
}
