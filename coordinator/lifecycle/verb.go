package lifecycle

// Verb is what a user may ask of a node's provision state. The zero Verb is none.
type Verb uint8

// The verbs, in the order of Ironic's documentation.
const (
	_ Verb = iota
	Manage
	Provide
	Inspect
	Clean
	Deploy
	Rebuild
	Delete
	Abort
	Unhold
	Adopt
	RescueVerb
	Unrescue
	Service
	endOfVerbs
)

var verbText = [...]string{ // read-only; the targets that Ironic's API takes
	Manage: "manage", Provide: "provide", Inspect: "inspect", Clean: "clean", Deploy: "active", Rebuild: "rebuild",
	Delete: "deleted", Abort: "abort", Unhold: "unhold", Adopt: "adopt", RescueVerb: "rescue", Unrescue: "unrescue",
	Service: "service",
}

// String is the verb as users write it: "active" for Deploy, "deleted" for Delete.
func (v Verb) String() string {
	if v > 0 && int(v) < len(verbText) {
		return verbText[v]
	}
	return "invalid verb"
}

// ParseVerb reads a verb, aliases "deploy" and "undeploy" included; ok is false for unknown text.
func ParseVerb(text string) (v Verb, ok bool) {
	switch text {
	case "deploy":
		return Deploy, true
	case "undeploy":
		return Delete, true
	}
	for v := Manage; v < endOfVerbs; v++ {
		if verbText[v] == text {
			return v, true
		}
	}
	return 0, false
}

// Verbs lists all verbs.
func Verbs() []Verb {
	all := make([]Verb, 0, endOfVerbs-Manage)
	for v := Manage; v < endOfVerbs; v++ {
		all = append(all, v)
	}
	return all
}

// Event is what the system itself reports about the work on a node. The zero Event is none.
type Event uint8

// The events. CleanEvent and ManageEvent are Ironic's internal uses of clean and manage: the end of a tear
// down, and the end of a cleaning that leads to manageable.
const (
	_ Event = iota
	Done
	Fail
	Wait
	Resume
	Hold
	CleanEvent
	ManageEvent
	endOfEvents
)

var eventText = [...]string{ // read-only
	Done: "done", Fail: "fail", Wait: "wait", Resume: "resume", Hold: "hold", CleanEvent: "clean", ManageEvent: "manage",
}

// String is Ironic's name of the event.
func (e Event) String() string {
	if e > 0 && int(e) < len(eventText) {
		return eventText[e]
	}
	return "invalid event"
}

// Events lists all events.
func Events() []Event {
	all := make([]Event, 0, endOfEvents-Done)
	for e := Done; e < endOfEvents; e++ {
		all = append(all, e)
	}
	return all
}
