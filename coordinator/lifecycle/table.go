package lifecycle

// Rule is one row of the table: exactly one of Verb and Event is set. Target is where the node is headed, and
// None when To is stable. Reason is empty in Ironic's own rows.
type Rule struct {
	From   State
	Verb   Verb
	Event  Event
	To     State
	Target State
	Reason string
}

// table is Ironic's, row by row, in the order of ironic/common/states.py. Cleaning's target is available;
// a manual clean overrides it with manageable and keeps it through the clean states (see KeepTarget).
var table = [...]Rule{ // read-only
	{From: Available, Verb: Deploy, To: Deploying, Target: Active},
	{From: Available, Verb: Manage, To: Manageable},
	{From: Deploying, Event: Fail, To: DeployFailed, Target: Active},
	{From: Deploying, Event: Wait, To: DeployWait, Target: Active},
	{From: Deploying, Event: Hold, To: DeployHold, Target: Active},
	{From: Deploying, Event: Done, To: Active},
	{From: DeployFailed, Verb: Rebuild, To: Deploying, Target: Active},
	{From: DeployFailed, Verb: Deploy, To: Deploying, Target: Active},
	{From: DeployFailed, Verb: Delete, To: Deleting, Target: Available},
	{From: DeployWait, Event: Hold, To: DeployHold, Target: Active},
	{From: DeployWait, Event: Resume, To: Deploying, Target: Active},
	{From: DeployWait, Event: Fail, To: DeployFailed, Target: Active},
	{From: DeployWait, Verb: Abort, To: DeployFailed, Target: Active},
	{From: DeployWait, Verb: Delete, To: Deleting, Target: Available},
	{From: DeployHold, Verb: Unhold, To: DeployWait, Target: Active},
	{From: DeployHold, Verb: Abort, To: DeployFailed, Target: Active},
	{From: Active, Verb: Rebuild, To: Deploying, Target: Active},
	{From: Active, Verb: Delete, To: Deleting, Target: Available},
	{From: Active, Verb: RescueVerb, To: Rescuing, Target: Rescue},
	{From: Active, Verb: Service, To: Servicing, Target: Active},
	{From: Deleting, Event: Fail, To: Error},
	{From: Deleting, Event: CleanEvent, To: Cleaning, Target: Available},
	{From: Cleaning, Event: Done, To: Available},
	{From: Cleaning, Event: ManageEvent, To: Manageable},
	{From: Cleaning, Event: Fail, To: CleanFailed, Target: Available},
	{From: Cleaning, Event: Wait, To: CleanWait, Target: Available},
	{From: Cleaning, Event: Hold, To: CleanHold, Target: Available},
	{From: CleanWait, Event: Fail, To: CleanFailed, Target: Available},
	{From: CleanWait, Verb: Abort, To: CleanFailed, Target: Available},
	{From: CleanWait, Event: Hold, To: CleanHold, Target: Available},
	{From: CleanWait, Event: Resume, To: Cleaning, Target: Available},
	{From: CleanHold, Verb: Abort, To: CleanFailed, Target: Available},
	{From: CleanHold, Verb: Unhold, To: CleanWait, Target: Available},
	{From: CleanFailed, Verb: Manage, To: Manageable},
	{From: Manageable, Verb: Provide, To: Cleaning, Target: Available},
	{From: Manageable, Verb: Clean, To: Cleaning, Target: Manageable},
	{From: Manageable, Verb: Inspect, To: Inspecting, Target: Manageable},
	{From: Manageable, Verb: Adopt, To: Adopting, Target: Active},
	{From: Error, Verb: Rebuild, To: Deploying, Target: Active},
	{From: Error, Verb: Delete, To: Deleting, Target: Available},
	{From: Inspecting, Event: Done, To: Manageable},
	{From: Inspecting, Event: Fail, To: InspectFailed, Target: Manageable},
	{From: Inspecting, Event: Wait, To: InspectWait, Target: Manageable},
	{From: InspectWait, Event: Done, To: Manageable},
	{From: InspectWait, Event: Fail, To: InspectFailed, Target: Manageable},
	{From: InspectWait, Verb: Abort, To: InspectFailed, Target: Manageable},
	{From: InspectWait, Event: Resume, To: Inspecting, Target: Manageable},
	{From: InspectFailed, Verb: Manage, To: Manageable},
	{From: InspectFailed, Verb: Inspect, To: Inspecting, Target: Manageable},
	{From: Rescuing, Event: Done, To: Rescue},
	{From: Rescuing, Event: Wait, To: RescueWait, Target: Rescue},
	{From: Rescuing, Event: Fail, To: RescueFailed, Target: Rescue},
	{From: RescueWait, Event: Resume, To: Rescuing, Target: Rescue},
	{From: RescueWait, Event: Fail, To: RescueFailed, Target: Rescue},
	{From: RescueWait, Verb: Abort, To: RescueFailed, Target: Rescue},
	{From: RescueWait, Verb: Delete, To: Deleting, Target: Available},
	{From: Rescue, Verb: RescueVerb, To: Rescuing, Target: Rescue},
	{From: Rescue, Verb: Unrescue, To: Unrescuing, Target: Active},
	{From: Rescue, Verb: Delete, To: Deleting, Target: Available},
	{From: RescueFailed, Verb: RescueVerb, To: Rescuing, Target: Rescue},
	{From: RescueFailed, Verb: Unrescue, To: Unrescuing, Target: Active},
	{From: RescueFailed, Verb: Delete, To: Deleting, Target: Available},
	{From: Unrescuing, Event: Done, To: Active},
	{From: Unrescuing, Event: Fail, To: UnrescueFailed, Target: Active},
	{From: UnrescueFailed, Verb: RescueVerb, To: Rescuing, Target: Rescue},
	{From: UnrescueFailed, Verb: Unrescue, To: Unrescuing, Target: Active},
	{From: UnrescueFailed, Verb: Delete, To: Deleting, Target: Available},
	{From: Enroll, Verb: Manage, To: Verifying, Target: Manageable},
	{From: Verifying, Event: Done, To: Manageable},
	{From: Verifying, Event: Fail, To: Enroll},
	{From: Adopting, Event: Done, To: Active},
	{From: Adopting, Event: Fail, To: AdoptFailed, Target: Active},
	{From: AdoptFailed, Verb: Adopt, To: Adopting, Target: Active},
	{From: AdoptFailed, Verb: Manage, To: Manageable},
	{From: Servicing, Event: Done, To: Active},
	{From: Servicing, Event: Fail, To: ServiceFailed, Target: Active},
	{From: Servicing, Event: Wait, To: ServiceWait, Target: Active},
	{From: Servicing, Event: Hold, To: ServiceHold, Target: Active},
	{From: ServiceWait, Event: Hold, To: ServiceHold, Target: Active},
	{From: ServiceWait, Event: Resume, To: Servicing, Target: Active},
	{From: ServiceWait, Event: Fail, To: ServiceFailed, Target: Active},
	{From: ServiceWait, Verb: Abort, To: ServiceFailed, Target: Active},
	{From: ServiceWait, Verb: Delete, To: Deleting, Target: Available},
	{From: ServiceHold, Verb: Service, To: Servicing, Target: Active},
	{From: ServiceHold, Verb: Unhold, To: ServiceWait, Target: Active},
	{From: ServiceHold, Event: Fail, To: ServiceFailed, Target: Active},
	{From: ServiceHold, Verb: Abort, To: ServiceFailed, Target: Active},
	{From: ServiceFailed, Verb: Service, To: Servicing, Target: Active},
	{From: ServiceFailed, Verb: RescueVerb, To: Rescuing, Target: Rescue},
	{From: ServiceFailed, Event: Wait, To: ServiceWait, Target: Active},
	{From: ServiceFailed, Event: Hold, To: ServiceHold, Target: Active},
	{From: ServiceFailed, Verb: Delete, To: Deleting, Target: Available},
	{From: ServiceFailed, Verb: Abort, To: Active},
}

const (
	abortAtOnce = "Ironic refuses abort while a conductor acts, so that a user has to catch the wait state. " +
		"Here it is recorded at once and takes effect at the end of the step."
	deleteAtOnce = "Ironic refuses deleted while a conductor acts or a step holds. Here it aborts the flow and the " +
		"tear down follows."
	holdFails = "Ironic has this row for service hold only: a machine that is claimed twice, or fails, while it is " +
		"held had no way to say so."
)

// additions are our own rows. Each mends something that Ironic's table leaves open.
var additions = [...]Rule{ // read-only
	{From: Verifying, Verb: Abort, To: Enroll, Reason: abortAtOnce},
	{From: Deploying, Verb: Abort, To: DeployFailed, Target: Active, Reason: abortAtOnce},
	{From: Cleaning, Verb: Abort, To: CleanFailed, Target: Available, Reason: abortAtOnce},
	{From: Inspecting, Verb: Abort, To: InspectFailed, Target: Manageable, Reason: abortAtOnce},
	{From: Rescuing, Verb: Abort, To: RescueFailed, Target: Rescue, Reason: abortAtOnce},
	{From: Unrescuing, Verb: Abort, To: UnrescueFailed, Target: Active, Reason: abortAtOnce},
	{From: Servicing, Verb: Abort, To: ServiceFailed, Target: Active, Reason: abortAtOnce},
	{From: Deploying, Verb: Delete, To: Deleting, Target: Available, Reason: deleteAtOnce},
	{From: DeployHold, Verb: Delete, To: Deleting, Target: Available, Reason: deleteAtOnce + " In Ironic, abort in " +
		"deploy hold moves to deploy failed and then runs a tear down whose clean event is not legal there."},
	{From: ServiceHold, Verb: Delete, To: Deleting, Target: Available, Reason: deleteAtOnce},
	{From: DeployHold, Event: Fail, To: DeployFailed, Target: Active, Reason: holdFails},
	{From: CleanHold, Event: Fail, To: CleanFailed, Target: Available, Reason: holdFails},
	{From: Deleting, Verb: Abort, To: Error, Reason: abortAtOnce + " A tear down that waits, for its turn or for an " +
		"agent that is gone, had no other end; the node keeps its instance and the tear down can be asked for again."},
	{From: Error, Verb: Manage, To: Manageable, Reason: "In Ironic a node whose tear down failed can only be rebuilt " +
		"or deleted again. Available stays guarded by the wipe record."},
}

// Rules is Ironic's table, in order. The caller may keep it.
func Rules() []Rule { return append([]Rule(nil), table[:]...) }

// Additions is our second table. The caller may keep it.
func Additions() []Rule { return append([]Rule(nil), additions[:]...) }

// NextVerb looks a user's verb up: the state the node moves to and its target, None when that is stable.
// ok is false when the verb is illegal in from.
func NextVerb(from State, v Verb) (to, target State, ok bool) {
	if v == 0 {
		return None, None, false
	}
	return next(func(r *Rule) bool { return r.From == from && r.Verb == v })
}

// NextEvent looks an internal event up. The target of a manual clean is the caller's to keep: see KeepTarget.
func NextEvent(from State, e Event) (to, target State, ok bool) {
	if e == 0 {
		return None, None, false
	}
	return next(func(r *Rule) bool { return r.From == from && r.Event == e })
}

func next(match func(*Rule) bool) (to, target State, ok bool) {
	for _, rows := range [...][]Rule{table[:], additions[:]} {
		for i := range rows {
			if match(&rows[i]) {
				return rows[i].To, rows[i].Target, true
			}
		}
	}
	return None, None, false
}

// KeepTarget is Ironic's rule for a manual clean (resume_cleaning): while a node goes from one clean state to
// another, a target of manageable stays. current is the node's target before the move, target is the table's.
func KeepTarget(to, current, target State) State {
	if to.InCleaning() && current == Manageable {
		return Manageable
	}
	return target
}

// LegalVerbs lists the verbs that a user may ask for in from, in the order of Verbs.
func LegalVerbs(from State) []Verb {
	var legal []Verb
	for v := Manage; v < endOfVerbs; v++ {
		if _, _, ok := NextVerb(from, v); ok {
			legal = append(legal, v)
		}
	}
	return legal
}
