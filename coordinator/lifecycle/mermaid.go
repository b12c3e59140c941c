package lifecycle

import (
	"fmt"
	"strings"
)

// Mermaid draws both tables as a Mermaid state diagram: events in lower case as Ironic names them, a user's
// verbs in ‹marks›, and our own rows behind a plus.
func Mermaid() string {
	var b strings.Builder
	b.WriteString("stateDiagram-v2\n    direction LR\n")
	for _, s := range States() {
		fmt.Fprintf(&b, "    state \"%s\" as %s\n", s, alias(s))
	}
	fmt.Fprintf(&b, "    [*] --> %s\n", alias(Enroll))
	for _, r := range table {
		fmt.Fprintf(&b, "    %s --> %s : %s\n", alias(r.From), alias(r.To), r.label())
	}
	for _, r := range additions {
		fmt.Fprintf(&b, "    %s --> %s : + %s\n", alias(r.From), alias(r.To), r.label())
	}
	b.WriteString("    classDef stable font-weight:bold\n")
	var stable []string
	for _, s := range States() {
		if s.Stable() {
			stable = append(stable, alias(s))
		}
	}
	fmt.Fprintf(&b, "    class %s stable\n", strings.Join(stable, ","))
	return b.String()
}

// label is ‹the verb›, or the event as it is.
func (r Rule) label() string {
	if r.Verb != 0 {
		return "‹" + r.Verb.String() + "›"
	}
	return r.Event.String()
}

func alias(s State) string { return strings.NewReplacer(" ", "_", "-", "_").Replace(s.String()) }
