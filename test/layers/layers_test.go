package layers

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
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

	{"coordinator/canon", nil},
	{"coordinator/table", []string{"coordinator/canon"}},
	{"coordinator/lifecycle", []string{"pkg/fault"}},
	{"coordinator/lock", []string{"pkg/fault"}},
	{"coordinator/ring", []string{"pkg/fault"}},
	{"coordinator/flow", []string{"coordinator/lock", "pkg/fault", "pkg/step"}},
	{"coordinator/node", []string{"coordinator/canon", "coordinator/flow", "coordinator/lifecycle", "coordinator/lock", "coordinator/ring", "pkg/fault", "pkg/step"}},
	{"coordinator/command", []string{"api/gen/", "coordinator/flow", "coordinator/lifecycle", "coordinator/lock", "coordinator/node", "pkg/fault", "pkg/step"}},
	{"coordinator/state", []string{"coordinator/canon", "coordinator/command", "coordinator/flow", "coordinator/node", "coordinator/ring", "coordinator/table", "pkg/fault"}},
	{"coordinator/job", []string{"coordinator/command", "coordinator/flow", "coordinator/lifecycle", "coordinator/lock", "coordinator/node", "coordinator/state", "pkg/fault", "pkg/step"}},
	{"coordinator/apply", []string{"coordinator/command", "coordinator/job", "coordinator/lifecycle", "coordinator/node", "coordinator/ring", "coordinator/state", "pkg/fault"}},
	{"coordinator/plan", []string{"coordinator/command", "coordinator/flow", "coordinator/job", "coordinator/lifecycle", "coordinator/lock", "coordinator/node", "coordinator/ring", "coordinator/state", "pkg/fault", "pkg/step"}},
	{"coordinator/replica", []string{"coordinator/command", "coordinator/replica/", "coordinator/state", "pkg/"}},
	{"coordinator/replica/archive", []string{"coordinator/state", "pkg/fault"}},
	{"coordinator/replica/ballot", nil},
	{"coordinator/replica/batch", []string{"coordinator/command", "coordinator/replica/entry", "coordinator/replica/fatal", "pkg/fault"}},
	{"coordinator/replica/boltfile", []string{"coordinator/replica/fatal", "pkg/fault"}},
	{"coordinator/replica/bootstrap", []string{"coordinator/apply", "coordinator/command", "coordinator/replica/archive", "coordinator/replica/entry", "coordinator/replica/home", "coordinator/state", "pkg/fault"}},
	{"coordinator/replica/entry", []string{"pkg/fault"}},
	{"coordinator/replica/fatal", []string{"pkg/fault"}},
	{"coordinator/replica/home", []string{"coordinator/replica/boltfile", "coordinator/replica/fatal", "coordinator/replica/logstore", "coordinator/replica/snapshot", "pkg/fault"}},
	{"coordinator/replica/logger", nil},
	{"coordinator/replica/logstore", []string{"coordinator/replica/fatal", "pkg/fault"}},
	{"coordinator/replica/machine", []string{"coordinator/apply", "coordinator/command", "coordinator/replica/archive", "coordinator/replica/ballot", "coordinator/replica/entry", "coordinator/replica/fatal", "coordinator/replica/upload", "coordinator/state", "pkg/fault"}},
	{"coordinator/replica/snapshot", []string{"coordinator/replica/fatal"}},
	{"coordinator/replica/transport", []string{"pkg/identity"}},
	{"coordinator/replica/upload", []string{"coordinator/command", "coordinator/replica/archive", "coordinator/replica/entry", "coordinator/state", "pkg/fault"}},
	{"coordinator/refusal", []string{"api/gen/", "pkg/fault"}},
	{"coordinator/access", []string{"api/gen/", "coordinator/refusal", "coordinator/state", "pkg/fault", "pkg/identity"}},
	{"coordinator/leader", []string{"api/gen/", "coordinator/command", "coordinator/refusal", "coordinator/state", "pkg/fault"}},
	{"coordinator/request", []string{"api/gen/", "coordinator/access", "coordinator/command", "coordinator/leader", "coordinator/refusal", "coordinator/state", "pkg/clock", "pkg/fault", "pkg/identity"}},
	{"coordinator/gate", []string{"api/gen/", "coordinator/access", "coordinator/command", "coordinator/leader", "coordinator/refusal", "coordinator/request", "pkg/fault", "pkg/identity"}},
	{"coordinator/membership", []string{"api/gen/", "coordinator/access", "coordinator/command", "coordinator/leader", "coordinator/message", "coordinator/refusal", "coordinator/request", "coordinator/state", "pkg/"}},
	{"coordinator/watch", []string{"api/gen/", "coordinator/flow", "coordinator/leader", "coordinator/message", "coordinator/node", "coordinator/refusal", "coordinator/request", "coordinator/state", "pkg/fault"}},
	{"coordinator/message", []string{"api/gen/", "coordinator/command", "coordinator/flow", "coordinator/lifecycle", "coordinator/node", "coordinator/refusal", "coordinator/state", "pkg/fault", "pkg/hint"}},
	{"coordinator/dispatch", []string{"api/gen/", "coordinator/command", "coordinator/dispatch/", "coordinator/flow", "coordinator/lock", "coordinator/node", "coordinator/plan", "coordinator/refusal", "coordinator/state", "pkg/"}},
	{"coordinator/dispatch/outbox", []string{"api/gen/", "pkg/fault"}},
	{"coordinator/dispatch/progress", []string{"api/gen/", "coordinator/flow", "coordinator/node"}},
	{"coordinator/dispatch/proposer", []string{"coordinator/command", "coordinator/state", "pkg/clock", "pkg/fault"}},
	{"coordinator/dispatch/ticker", []string{"coordinator/command", "coordinator/dispatch/proposer", "coordinator/flow", "coordinator/plan", "coordinator/state", "pkg/clock", "pkg/fault"}},
	{"coordinator/dispatch/waitlist", []string{"coordinator/command", "coordinator/dispatch/proposer", "coordinator/lifecycle", "coordinator/lock", "coordinator/node", "pkg/clock", "pkg/fault"}},
	{"coordinator/fleet", []string{"api/gen/", "coordinator/access", "coordinator/command", "coordinator/flow", "coordinator/lifecycle", "coordinator/lock", "coordinator/message", "coordinator/node", "coordinator/refusal", "coordinator/request", "coordinator/ring", "coordinator/state", "pkg/"}},
	{"coordinator/rpc", []string{"api/gen/", "coordinator/access", "coordinator/command", "coordinator/fleet", "coordinator/flow", "coordinator/gate", "coordinator/leader", "coordinator/membership", "coordinator/node", "coordinator/request", "coordinator/state", "coordinator/watch", "pkg/"}},
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
	{"agent/powersync", []string{"agent/bmc", "agent/task", "pkg/"}},
	{"agent/uplink", []string{"api/gen/", "agent/task", "agent/work", "pkg/"}},
	{"agent/downlink", []string{"api/gen/", "agent/task", "pkg/"}},
	{"agent/config", []string{"pkg/"}},
	{"agent/server", []string{"agent/", "api/gen/", "pkg/"}},
	{"agent", []string{"agent/config", "agent/server", "pkg/"}},

	{"ramdisk-agent", []string{"ramdisk-agent/", "api/gen/", "pkg/"}},
	{"ramdisk-agent/", []string{"ramdisk-agent/", "api/gen/", "pkg/"}},
	{"ramdisk-agent/work", []string{"pkg/fault", "pkg/step"}},
	{"ramdisk-agent/erase", []string{"pkg/fault", "ramdisk-agent/disk", "ramdisk-agent/gpt", "ramdisk-agent/mbr", "ramdisk-agent/progress"}},
	{"ramdisk-agent/progress", nil},
	{"ramdisk-agent/rootdevice", []string{"pkg/fault", "pkg/hint", "ramdisk-agent/disk"}},

	{"cmd/farrier", []string{"cmd/farrier/", "api/gen/", "pkg/"}},
	{"cmd/farrier/", []string{"cmd/farrier/", "api/gen/", "pkg/"}},
	{"cmd/farrier/view", []string{"api/gen/", "pkg/fault"}},
	{"cmd/farrier/outcome", []string{"cmd/farrier/view", "api/gen/", "pkg/client", "pkg/fault"}},
	{"cmd/farrier/selection", []string{"pkg/fault"}},
	{"cmd/farrier/demo", []string{"cmd/farrier/", "api/gen/", "pkg/", "test/lab/"}},

	{"test/", []string{""}},
}

// only lists modules, with all that lies below them, that no other rooms may import than these, written as in rule.
var only = map[string][]string{ // read-only
	"github.com/hashicorp/go-hclog":       {"coordinator/replica/logger"},
	"github.com/hashicorp/raft":           {"coordinator/replica", "coordinator/replica/"},
	"github.com/hashicorp/raft-boltdb/v2": {"coordinator/replica/boltfile"},
	"github.com/pin/tftp/v3":              {"agent/tftp"},
	"github.com/stmcginnis/gofish":        {"agent/bmc/redfish"},
	"github.com/insomniacslk/dhcp":        {"agent/dhcp", "ramdisk-agent/pid1"}, // the ramdisk is a DHCP client
	"github.com/vishvananda/netlink":      {"ramdisk-agent/pid1"},
}

// owners of a module are the rooms that alone may import it.
func owners(path string) (module string, rooms []string) {
	for m, r := range only {
		if (path == m || strings.HasPrefix(path, m+"/")) && len(m) > len(module) {
			module, rooms = m, r
		}
	}
	return module, rooms
}

// pure rooms do no I/O, read no clock, draw no randomness, start no goroutine and log nothing.
var pure = []string{ // read-only
	"coordinator/canon", "coordinator/table", "coordinator/lifecycle", "coordinator/lock", "coordinator/ring", "coordinator/flow", "coordinator/node", "coordinator/command",
	"coordinator/state", "coordinator/job", "coordinator/apply", "coordinator/plan", "coordinator/message", "coordinator/replica/entry", "agent/boot", "agent/bootenv", "agent/lease", "agent/work", "ramdisk-agent/work",
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

func anyMatches(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, path) })
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
				if !anyMatches(r.may, inner) {
					t.Errorf("%s imports %s, which its row does not allow", room, inner)
				}
				continue
			}
			if m, rooms := owners(imp); m != "" && !anyMatches(rooms, room) && !strings.HasPrefix(room, "test/") {
				t.Errorf("%s imports %s, which only %s may", room, imp, strings.Join(rooms, ", "))
			}
		}
	}
}

// TestTheTablesNameRooms: a row for a room that is not there, or no longer, protects nothing.
func TestTheTablesNameRooms(t *testing.T) {
	var rooms []string
	for _, p := range packages(t) {
		rooms = append(rooms, strings.TrimPrefix(p.ImportPath, module))
	}
	there := func(pattern string) bool {
		return slices.ContainsFunc(rooms, func(r string) bool { return matches(pattern, r) })
	}
	for _, r := range table {
		for _, pattern := range append([]string{r.room}, r.may...) {
			if pattern != "" && !there(pattern) {
				t.Errorf("the row of %s names %s, which is no room", r.room, pattern)
			}
		}
	}
	for _, r := range slices.Concat(append(slices.Collect(maps.Values(only)), pure)...) {
		if !there(r) {
			t.Errorf("%s is no room", r)
		}
	}
}

func TestPureRoomsStayPure(t *testing.T) {
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
		files, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(room), "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("pure room %s has no files (%v)", room, err)
		}
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			src, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, what := range impurities(t, path, string(src)) {
				t.Errorf("pure room %s: %s", room, what)
			}
		}
	}
}

// impurities of a file: goroutines, floating point, and the functions of package time that look at a clock.
func impurities(t *testing.T, path, src string) (found []string) {
	t.Helper()
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, path, src, 0)
	if err != nil {
		t.Fatal(err)
	}
	timeName := ""
	for _, imp := range f.Imports {
		if imp.Path.Value == `"time"` {
			timeName = "time"
			if imp.Name != nil {
				timeName = imp.Name.Name
			}
		}
	}
	clock := []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker"}
	add := func(n ast.Node, what string) {
		found = append(found, fmt.Sprintf("%s: %s", set.Position(n.Pos()), what))
	}
	if timeName == "." {
		add(f, "package time is imported without its name")
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			add(n, "a goroutine")
		case *ast.Ident:
			if n.Name == "float32" || n.Name == "float64" {
				add(n, "floating point")
			}
		case *ast.BasicLit:
			if n.Kind == token.FLOAT {
				add(n, "floating point")
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == timeName && slices.Contains(clock, n.Sel.Name) {
				add(n, "time."+n.Sel.Name)
			}
		}
		return true
	})
	return found
}

// TestImpuritiesAreFound: "go s.run()" was none for a search for "go func".
func TestImpuritiesAreFound(t *testing.T) {
	for src, want := range map[string]int{
		"func f(s t) { go s.run() }":                                           1,
		"func f() { go func() {}() }":                                          1,
		"var x float64":                                                        1,
		"const half = 0.5":                                                     1,
		"import \"time\"\nvar x = time.Now()":                                  1,
		"import clock \"time\"\nvar x = clock.Since":                           1,
		"import . \"time\"\nvar x = Now()":                                     1,
		"import \"time\"\nfunc f(now time.Time) time.Duration":                 0,
		"type now struct{ Now int }; func f(time now) int { return time.Now }": 0,
	} {
		if got := impurities(t, "x.go", "package x\n"+src+"\n"); len(got) != want {
			t.Errorf("%s: found %v, want %d", src, got, want)
		}
	}
}
