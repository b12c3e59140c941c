package apply

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata from what the code does")

// TestDeployTranscript tells one life of a node as a transcript: each command, and the events it added.
func TestDeployTranscript(t *testing.T) {
	w := newWorld(t)
	var out strings.Builder
	seen := len(w.events)
	say := func(what string) {
		fmt.Fprintf(&out, "> %s\n", what)
		for _, e := range w.events[seen:] {
			fmt.Fprintf(&out, "  %s", e.Type)
			for _, k := range slices.Sorted(maps.Keys(e.Fields)) {
				fmt.Fprintf(&out, " %s=%q", k, e.Fields[k])
			}
			out.WriteByte('\n')
		}
		seen = len(w.events)
	}
	w.agent("r1", 1)
	say("agent r1 opens a session")
	id := w.create(1)
	say("create node n1")
	for _, verb := range []string{"manage", "provide", "active", "deleted"} {
		w.must(w.verb(id, verb))
		say("operator alice: " + verb)
		for w.open(id) {
			what := w.flow(id).Step().FullName() + " succeeds"
			if w.flow(id).Step().Name == "wait_ramdisk" {
				what = "the ramdisk makes contact"
			}
			w.must(w.done(id))
			say(what)
		}
	}
	const file = "testdata/deploy.txt"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != out.String() {
		t.Errorf("the transcript differs from %s; run the test with -update and read the difference", file)
	}
}
