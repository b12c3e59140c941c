package lifecycle

import (
	"slices"
	"testing"
)

func all() []Rule { return append(Rules(), Additions()...) }

func TestCounts(t *testing.T) {
	if n := len(States()); n != 30 {
		t.Errorf("%d states, want Ironic's 30", n)
	}
	if n := len(Rules()); n != 93 {
		t.Errorf("%d transitions, want Ironic's 93", n)
	}
	for _, r := range Rules() {
		if r.Reason != "" {
			t.Errorf("%v has a reason: it belongs to the additions", r)
		}
	}
	for _, r := range Additions() {
		if r.Reason == "" {
			t.Errorf("addition %s %s has no reason", r.From, r.label())
		}
	}
}

func TestRowsAreSound(t *testing.T) {
	type key struct {
		from State
		verb Verb
		on   Event
	}
	seen := map[key]bool{}
	for _, r := range all() {
		k := key{r.From, r.Verb, r.Event}
		if seen[k] {
			t.Errorf("two rows for %s on %s", r.From, r.label())
		}
		seen[k] = true
		if (r.Verb == 0) == (r.Event == 0) {
			t.Errorf("%s to %s: exactly one of verb and event is wanted", r.From, r.To)
		}
		if r.From == None || r.To == None {
			t.Errorf("row %v starts or ends nowhere", r)
		}
		if r.Target != None && !r.Target.Stable() {
			t.Errorf("%s on %s: target %s is not stable", r.From, r.label(), r.Target)
		}
		if (r.Target == None) != r.To.Stable() {
			t.Errorf("%s on %s: state %s with target %q", r.From, r.label(), r.To, r.Target)
		}
	}
}

// Cleaning is the one state with two targets: the table's own is overridden for a manual clean.
func TestOneTargetPerState(t *testing.T) {
	target := map[State]State{}
	for _, r := range all() {
		if r.From == Manageable && r.Verb == Clean {
			continue
		}
		if was, ok := target[r.To]; ok && was != r.Target {
			t.Errorf("%s is entered with targets %q and %q", r.To, was, r.Target)
		}
		target[r.To] = r.Target
	}
}

func TestClassesPartitionTheStates(t *testing.T) {
	for _, s := range States() {
		n := 0
		for _, in := range []bool{s.Stable(), s.Transient(), s.Waiting(), s.Held(), s.Failed()} {
			if in {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s is in %d classes, want 1", s, n)
		}
	}
}

func TestWaysOut(t *testing.T) {
	for _, s := range States() {
		var verbs, events []string
		for _, r := range all() {
			switch {
			case r.From != s:
			case r.Verb != 0:
				verbs = append(verbs, r.label())
			default:
				events = append(events, r.label())
			}
		}
		switch {
		case s.Transient() && !slices.Contains(events, "fail"):
			t.Errorf("%s cannot fail", s)
		case s.Waiting() && (!slices.Contains(events, "fail") || !slices.Contains(events, "resume")):
			t.Errorf("%s cannot fail and resume: %v", s, events)
		case !s.Transient() && !s.Waiting() && len(verbs) == 0:
			t.Errorf("%s has no way out for a user", s)
		case s.Stable() && len(events) > 0:
			t.Errorf("%s is stable and moves by itself on %v", s, events)
		}
	}
}

// A user's verb must not pass for an internal event, also where Ironic gives both one name.
func TestVerbsAreNotEvents(t *testing.T) {
	for _, e := range Events() {
		v, ok := ParseVerb(e.String())
		if !ok {
			continue
		}
		if e != CleanEvent && e != ManageEvent {
			t.Errorf("a user could ask for the event %s", e)
		}
		for _, s := range States() {
			_, _, byVerb := NextVerb(s, v)
			_, _, byEvent := NextEvent(s, e)
			if byVerb && byEvent {
				t.Errorf("%s answers both the verb and the event %s", s, e)
			}
		}
	}
	for _, s := range []State{Cleaning, Deleting} {
		for _, v := range LegalVerbs(s) {
			if v == Manage || v == Clean {
				t.Errorf("a user may %s in %s", v, s)
			}
		}
	}
}

func reach(from State, forward bool) map[State]bool {
	seen := map[State]bool{from: true}
	for queue := []State{from}; len(queue) > 0; queue = queue[1:] {
		for _, r := range all() {
			a, b := r.From, r.To
			if !forward {
				a, b = b, a
			}
			if a == queue[0] && !seen[b] {
				seen[b] = true
				queue = append(queue, b)
			}
		}
	}
	return seen
}

func TestEveryStateIsReachedAndLeadsBack(t *testing.T) {
	fromEnroll, toAvailable := reach(Enroll, true), reach(Available, false)
	for _, s := range States() {
		if !fromEnroll[s] {
			t.Errorf("%s is never reached from enroll", s)
		}
		if !toAvailable[s] { // no exceptions: every node can become available again
			t.Errorf("no path leads from %s to available", s)
		}
	}
}

func TestNext(t *testing.T) {
	for _, c := range []struct {
		from       State
		verb       Verb
		event      Event
		to, target State
	}{
		{from: Enroll, verb: Manage, to: Verifying, target: Manageable},
		{from: Manageable, verb: Provide, to: Cleaning, target: Available},
		{from: Manageable, verb: Clean, to: Cleaning, target: Manageable},
		{from: Cleaning, event: ManageEvent, to: Manageable},
		{from: Deleting, event: CleanEvent, to: Cleaning, target: Available},
		{from: Verifying, event: Fail, to: Enroll},
		{from: Deleting, event: Fail, to: Error},
		{from: DeployWait, verb: Delete, to: Deleting, target: Available},
		{from: ServiceFailed, verb: Abort, to: Active},
		{from: Error, verb: Manage, to: Manageable},
	} {
		to, target, ok := NextVerb(c.from, c.verb)
		if c.event != 0 {
			to, target, ok = NextEvent(c.from, c.event)
		}
		if !ok || to != c.to || target != c.target {
			t.Errorf("%s on %v/%v: %s, target %q, %v; want %s, %q", c.from, c.verb, c.event, to, target, ok, c.to, c.target)
		}
	}
	if _, _, ok := NextVerb(Active, Provide); ok {
		t.Error("an active node may be provided")
	}
	if _, _, ok := NextVerb(Active, 0); ok {
		t.Error("no verb is a verb")
	}
	if _, _, ok := NextEvent(Active, 0); ok {
		t.Error("no event is an event")
	}
}

func TestKeepTarget(t *testing.T) {
	if got := KeepTarget(CleanWait, Manageable, Available); got != Manageable {
		t.Errorf("a manual clean lost its target: %s", got)
	}
	if got := KeepTarget(CleanWait, Available, Available); got != Available {
		t.Errorf("an automated clean ends in %s", got)
	}
	if got := KeepTarget(Manageable, Manageable, None); got != None {
		t.Errorf("a stable state has target %s", got)
	}
}

func TestTextRoundTrips(t *testing.T) {
	for _, s := range append(States(), None) {
		if got, ok := ParseState(s.String()); !ok || got != s {
			t.Errorf("state %q reads back as %q, %v", s, got, ok)
		}
	}
	for _, v := range Verbs() {
		if got, ok := ParseVerb(v.String()); !ok || got != v {
			t.Errorf("verb %q reads back as %q, %v", v, got, ok)
		}
	}
	for alias, want := range map[string]Verb{"deploy": Deploy, "undeploy": Delete} {
		if got, ok := ParseVerb(alias); !ok || got != want {
			t.Errorf("alias %q reads as %v, %v", alias, got, ok)
		}
	}
	for _, text := range []string{"", "done", "fail", "resume", "wait", "hold", "delete", "Active"} {
		if v, ok := ParseVerb(text); ok {
			t.Errorf("%q is taken for the verb %s", text, v)
		}
	}
}

// TestStatesKeepTheirNumbers: snapshots and archives hold them. A failure here means that a state was moved: put it at the end.
func TestStatesKeepTheirNumbers(t *testing.T) {
	for text, want := range map[string]State{"": 0, "enroll": 1, "verifying": 2, "manageable": 3, "available": 4, "deploying": 5, "wait call-back": 6,
		"deploy hold": 7, "deploy failed": 8, "active": 9, "deleting": 10, "error": 11, "cleaning": 12, "clean wait": 13, "clean hold": 14,
		"clean failed": 15, "inspecting": 16, "inspect wait": 17, "inspect failed": 18, "adopting": 19, "adopt failed": 20, "rescuing": 21,
		"rescue wait": 22, "rescue": 23, "rescue failed": 24, "unrescuing": 25, "unrescue failed": 26, "servicing": 27, "service wait": 28,
		"service hold": 29, "service failed": 30} {
		if got, ok := ParseState(text); !ok || got != want {
			t.Errorf("%q is %d, was %d", text, got, want)
		}
	}
	if endOfStates != 31 || State(31).Known() || !ServiceFailed.Known() {
		t.Errorf("%d states: give the new ones their numbers here", endOfStates)
	}
}

func TestLegalVerbs(t *testing.T) {
	if got := LegalVerbs(Available); !slices.Equal(got, []Verb{Manage, Deploy}) {
		t.Errorf("available: %v", got)
	}
	if got := LegalVerbs(Deleting); !slices.Equal(got, []Verb{Abort}) {
		t.Errorf("deleting: %v", got)
	}
}
