package layers

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/farrier-project/farrier/"

// rule says what rooms under a path may import of ours: exact rooms, or a prefix that ends in "/". Server rooms may
// import every room of their own part.
type rule struct {
	room string
	may  []string
}

// The table. A room without a row fails the test. The longest room that matches applies.
var table = []rule{ // read-only
	{"api/gen/", []string{"api/gen/"}},
	{"pkg/clock", nil},
	{"pkg/connlimit", nil},
	{"pkg/fault", nil},
	{"pkg/heap", nil},
	{"pkg/retry", nil},
	{"pkg/hint", []string{"pkg/fault"}},
	{"pkg/identity", []string{"pkg/fault"}},
	{"pkg/secret", []string{"pkg/fault"}},
	{"pkg/step", []string{"pkg/clock", "pkg/fault", "pkg/retry"}},
	{"pkg/client", []string{"api/gen/", "pkg/fault", "pkg/retry", "pkg/identity", "pkg/client"}},

	{"coordinator/lifecycle", []string{"pkg/fault"}},
	{"coordinator/lock", []string{"pkg/fault"}},
	{"coordinator/ring", []string{"pkg/fault"}},
	{"coordinator/flow", []string{"coordinator/lock", "pkg/fault", "pkg/step"}},
	{"coordinator/node", []string{"coordinator/flow", "coordinator/lifecycle", "coordinator/lock", "coordinator/ring", "pkg/fault", "pkg/step"}},
	{"coordinator/command", []string{"api/gen/", "coordinator/flow", "coordinator/lifecycle", "coordinator/lock", "coordinator/node", "pkg/fault", "pkg/step"}},
	{"coordinator/state", []string{"coordinator/command", "coordinator/flow", "coordinator/lifecycle", "coordinator/lock", "coordinator/node", "coordinator/ring", "pkg/fault", "pkg/step"}},
	{"coordinator/plan", []string{"coordinator/command", "coordinator/flow", "coordinator/lifecycle", "coordinator/lock", "coordinator/node", "coordinator/ring", "coordinator/state", "pkg/fault", "pkg/step"}},
	{"coordinator/replica", []string{"coordinator/command", "coordinator/state", "pkg/"}},
	{"coordinator/dispatch", []string{"api/gen/", "coordinator/command", "coordinator/flow", "coordinator/lifecycle", "coordinator/lock", "coordinator/node", "coordinator/plan", "coordinator/state", "pkg/"}},
	{"coordinator/rpc", []string{"api/gen/", "coordinator/command", "coordinator/flow", "coordinator/lifecycle", "coordinator/lock", "coordinator/node", "coordinator/plan", "coordinator/ring", "coordinator/state", "pkg/"}},
	{"coordinator/config", []string{"pkg/"}},
	{"coordinator/server", []string{"coordinator/", "api/gen/", "pkg/"}},
	{"coordinator", []string{"coordinator/config", "coordinator/server", "pkg/"}},

	{"agent/boot", []string{"pkg/fault", "pkg/step"}},
	{"agent/bootenv", []string{"agent/boot", "pkg/fault", "pkg/step"}},
	{"agent/lease", []string{"pkg/fault", "pkg/step"}},
	{"agent/work", []string{"pkg/fault", "pkg/step"}},
	{"agent/imagecache", []string{"pkg/"}},
	{"agent/journal", []string{"pkg/"}},
	{"agent/dhcp", []string{"agent/boot", "agent/bootenv", "agent/lease", "pkg/"}},
	{"agent/tftp", []string{"pkg/"}},
	{"agent/httpboot", []string{"agent/boot", "agent/bootenv", "agent/imagecache", "pkg/"}},
	{"agent/bmc", []string{"pkg/"}},
	{"agent/bmc/", []string{"agent/bmc", "pkg/"}},
	{"agent/driver", []string{"agent/work", "agent/bmc", "agent/journal", "pkg/"}},
	{"agent/steps", []string{"agent/work", "agent/bmc", "agent/driver", "agent/journal", "pkg/"}},
	{"agent/task", []string{"agent/work", "agent/bmc", "agent/driver", "agent/journal", "agent/steps", "pkg/"}},
	{"agent/uplink", []string{"api/gen/", "agent/task", "agent/work", "pkg/"}},
	{"agent/downlink", []string{"api/gen/", "agent/task", "pkg/"}},
	{"agent/config", []string{"pkg/"}},
	{"agent/server", []string{"agent/", "api/gen/", "pkg/"}},
	{"agent", []string{"agent/config", "agent/server", "pkg/"}},

	{"ramdisk-agent", []string{"ramdisk-agent/", "api/gen/", "pkg/"}},
	{"ramdisk-agent/", []string{"ramdisk-agent/", "api/gen/", "pkg/"}},
	{"ramdisk-agent/work", []string{"pkg/fault", "pkg/step"}},

	{"cmd/farrier", []string{"cmd/farrier/", "api/gen/", "pkg/"}},
	{"cmd/farrier/", []string{"cmd/farrier/", "api/gen/", "pkg/"}},
	{"cmd/farrier/demo", []string{"cmd/farrier/", "api/gen/", "pkg/", "test/lab/"}},

	{"test/", []string{""}},
}

// only lists modules that one room alone may import.
var only = map[string]string{ // read-only
	"github.com/hashicorp/raft":           "coordinator/replica",
	"github.com/hashicorp/raft-boltdb/v2": "coordinator/replica",
	"github.com/pin/tftp/v3":              "agent/tftp",
	"github.com/stmcginnis/gofish":        "agent/bmc/redfish",
	"github.com/insomniacslk/dhcp/dhcpv4": "agent/dhcp",
	"github.com/vishvananda/netlink":      "ramdisk-agent/pid1",
}

type pkg struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	var all []pkg
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func matches(pattern, path string) bool {
	if pattern == "" || strings.HasSuffix(pattern, "/") {
		return strings.HasPrefix(path, pattern)
	}
	return pattern == path
}

func ruleOf(room string) (rule, bool) {
	var best rule
	found := false
	for _, r := range table {
		if matches(r.room, room) && (!found || len(r.room) > len(best.room)) {
			best, found = r, true
		}
	}
	return best, found
}

func TestImportsPointOneWay(t *testing.T) {
	for _, p := range packages(t) {
		room := strings.TrimPrefix(p.ImportPath, module)
		r, ok := ruleOf(room)
		if !ok {
			t.Errorf("room %s has no row in the table", room)
			continue
		}
		for _, imp := range p.Imports {
			if inner, ours := strings.CutPrefix(imp, module); ours {
				if !slices.ContainsFunc(r.may, func(m string) bool { return matches(m, inner) }) {
					t.Errorf("%s imports %s, which its row does not allow", room, inner)
				}
				continue
			}
			if owner, limited := only[imp]; limited && room != owner && !strings.HasPrefix(room, "test/") && !strings.HasPrefix(room, "ramdisk-agent/pid1") {
				t.Errorf("%s imports %s, which only %s may", room, imp, owner)
			}
		}
	}
}

// pure rooms may not read clocks, draw randomness, do I/O, log, or start goroutines.
func TestPureRoomsStayPure(t *testing.T) {
	pure := []string{"coordinator/lifecycle", "coordinator/lock", "coordinator/ring", "coordinator/flow", "coordinator/node",
		"coordinator/state", "coordinator/plan", "agent/boot", "agent/bootenv", "agent/lease", "agent/work", "ramdisk-agent/work"}
	barred := []string{"os", "net", "net/http", "log", "log/slog", "math/rand", "math/rand/v2", "crypto/rand", "os/exec", "syscall", "context"}
	for _, p := range packages(t) {
		room := strings.TrimPrefix(p.ImportPath, module)
		if !slices.Contains(pure, room) {
			continue
		}
		for _, imp := range p.Imports {
			if slices.Contains(barred, imp) {
				t.Errorf("pure room %s imports %s", room, imp)
			}
		}
		if out, _ := exec.Command("grep", "-nE", `time\.(Now|Since|After|Sleep|NewTimer|NewTicker)\(|^\s*go func|float(32|64)`, "-r",
			"--include=*.go", "--exclude=*_test.go", "../../"+room).Output(); len(out) > 0 {
			t.Errorf("pure room %s:\n%s", room, out)
		}
	}
}
