package cli

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// offered is what a shell is told for the last word of a line, without a cluster; files says that it adds its own.
func offered(t *testing.T, line ...string) (values []string, files bool) {
	t.Helper()
	var out, errOut bytes.Buffer
	root := New("test", strings.NewReader(""), &out, &errOut)
	root.SetArgs(append([]string{"__complete", "--config", filepath.Join(t.TempDir(), "none")}, line...))
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	return lines[:len(lines)-1], lines[len(lines)-1] == ":0"
}

// TestTheShellOffersValues: of a fixed set those that may come next, and a file only where one can stand.
func TestTheShellOffersValues(t *testing.T) {
	for _, c := range []struct {
		line  string
		want  string
		files bool
	}{
		{"node list --state clean", "cleaning|clean wait|clean hold|clean failed", false},
		{"node list --state clean wait,act", "clean wait,active", false},
		{"node list --state active,act", "", false},
		{"node list --fields name,provision_s", "name,provision_state", false},
		{"node show m1 --fields power", "power_state", false},
		{"lock list --fields ho", "holder", false},
		{"node list --sort na", "name|name desc", false},
		{"node list --name ", "", false},
		{"node list ", "", false},
		{"event tail --type lock.", "lock.granted|lock.released|lock.broken", false},
		{"node deploy m1 --format raw.", "raw.gz|raw.zst", false},
		{"node deploy m1 --root-device r", "rotational=", false},
		{"node deploy m1 --user-data ", "", true},
		{"node clean m1 --step deploy.erase_devices_", "deploy.erase_devices_metadata", false},
		{"node set m1 --automated-clean ", "true|false", false},
		{"node list -o ", "table|json|yaml", false},
		{"coordinator snapshot save ", "", true},
		{"operator token ", "", false},
		{"node power ", "off|on|reboot|soft-off|soft-reboot", false},
	} {
		words := strings.Split(c.line, " ")
		if i := slices.Index(words, "--state"); i > 0 { // the value may have spaces
			words = append(words[:i+1:i+1], strings.Join(words[i+1:], " "))
		}
		got, files := offered(t, words...)
		var names []string
		for _, value := range got {
			name, _, _ := strings.Cut(value, "\t")
			names = append(names, name)
		}
		if strings.Join(names, "|") != c.want || files != c.files {
			t.Errorf("%s: %q, files %v; want %q, files %v", c.line, names, files, c.want, c.files)
		}
	}
}
