package lifecycle

// State is a provision state of Ironic. The zero State is None.
type State uint8

// The states, in the order of Ironic's documentation. None is "no state": the target of a stable node. Snapshots hold the
// numbers: a new state is put at the end.
const (
	None State = iota
	Enroll
	Verifying
	Manageable
	Available
	Deploying
	DeployWait
	DeployHold
	DeployFailed
	Active
	Deleting
	Error
	Cleaning
	CleanWait
	CleanHold
	CleanFailed
	Inspecting
	InspectWait
	InspectFailed
	Adopting
	AdoptFailed
	Rescuing
	RescueWait
	Rescue
	RescueFailed
	Unrescuing
	UnrescueFailed
	Servicing
	ServiceWait
	ServiceHold
	ServiceFailed
	endOfStates
)

var stateText = [...]string{ // read-only; Ironic's wire strings, spaces included
	None: "", Enroll: "enroll", Verifying: "verifying", Manageable: "manageable", Available: "available",
	Deploying: "deploying", DeployWait: "wait call-back", DeployHold: "deploy hold", DeployFailed: "deploy failed",
	Active: "active", Deleting: "deleting", Error: "error", Cleaning: "cleaning", CleanWait: "clean wait",
	CleanHold: "clean hold", CleanFailed: "clean failed", Inspecting: "inspecting", InspectWait: "inspect wait",
	InspectFailed: "inspect failed", Adopting: "adopting", AdoptFailed: "adopt failed", Rescuing: "rescuing",
	RescueWait: "rescue wait", Rescue: "rescue", RescueFailed: "rescue failed", Unrescuing: "unrescuing",
	UnrescueFailed: "unrescue failed", Servicing: "servicing", ServiceWait: "service wait",
	ServiceHold: "service hold", ServiceFailed: "service failed",
}

// String is Ironic's wire string.
func (s State) String() string {
	if int(s) < len(stateText) {
		return stateText[s]
	}
	return "invalid state"
}

// Known tells whether s is a state of this table.
func (s State) Known() bool { return s < endOfStates }

// ParseState reads a wire string; ok is false for unknown text. The empty string is None.
func ParseState(text string) (s State, ok bool) {
	for s := range endOfStates {
		if stateText[s] == text {
			return s, true
		}
	}
	return None, false
}
