package lifecycle

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite docs/lifecycle.md from the table") // read-only once parsed

// TestDocument keeps docs/lifecycle.md equal to the table.
func TestDocument(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "lifecycle.md")
	want := document()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is stale: go test ./coordinator/lifecycle -run TestDocument -update", path)
	}
}

func document() string {
	var b strings.Builder
	b.WriteString(`# The life of a node

This page is generated from coordinator/lifecycle/table.go:
` + "`go test ./coordinator/lifecycle -run TestDocument -update`" + `. The states, their names and the first table are
Ironic's; the second table holds the rows that Farrier adds, and why.

A ‹verb› is what a user may ask for (` + "`farrier node manage`, `farrier node deploy`" + `, ...). A plain word is an event:
what the system reports to itself. The two are different things in Farrier, so no request can be an event.

`)
	b.WriteString("```mermaid\n" + Mermaid() + "```\n\n## States\n\n| state | kind | legal verbs |\n| --- | --- | --- |\n")
	for _, s := range States() {
		var verbs []string
		for _, v := range LegalVerbs(s) {
			verbs = append(verbs, v.String())
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s, kind(s), strings.Join(verbs, ", "))
	}
	b.WriteString(`
* *stable*: nothing moves the node but a verb. No target is set.
* *transient*: an agent acts on the node and the lock is held.
* *waiting*: the ramdisk works, or is awaited. The lock is free; a report takes the flow on.
* *held*: a hold step waits for an operator's ` + "`unhold`" + `.
* *failed*: a user decides what comes next; ` + "`last_error`" + ` says what went wrong.

`)
	fmt.Fprintf(&b, "## Transitions\n\nIronic's %d rows. The target is the state the node is headed for.\n\n", len(table))
	b.WriteString("| from | on | to | target |\n| --- | --- | --- | --- |\n")
	for _, r := range Rules() {
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s |\n", r.From, r.label(), r.To, target(r))
	}
	b.WriteString(`
A manual clean sets the target to ` + "`manageable`" + ` and keeps it through all clean states; a retired node ends its cleaning in
` + "`manageable`" + ` too. An abort in a service ends in ` + "`active`" + ` after the tear down.

## Additions

| from | on | to | target | why |
| --- | --- | --- | --- | --- |
`)
	for _, r := range Additions() {
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s | %s |\n", r.From, r.label(), r.To, target(r), r.Reason)
	}
	return b.String()
}

func target(r Rule) string {
	if r.Target == None {
		return "-"
	}
	return "`" + r.Target.String() + "`"
}

func kind(s State) string {
	switch {
	case s.Stable():
		return "stable"
	case s.Transient():
		return "transient"
	case s.Waiting():
		return "waiting"
	case s.Held():
		return "held"
	default:
		return "failed"
	}
}
