package node

// FaultPower is the fault of a node in maintenance because its BMC did not say, time after time, whether the machine is on.
const FaultPower = "power failure"

// PowerWatch is what a node's owner does about its power while nothing is ordered.
type PowerWatch uint8

// The watches. Readings are facts only: none of them has a machine switched on or off.
const (
	PowerIgnored  PowerWatch = iota // nothing
	PowerRead                       // it is read now and then
	PowerRecovery                   // its BMC did not answer: it is tried more seldom
)

// String is the watch's text in assignments.
func (w PowerWatch) String() string {
	switch w {
	case PowerRead:
		return "read"
	case PowerRecovery:
		return "recover"
	default:
		return ""
	}
}

// PowerWatch tells what is to be done about the node's power. It is left alone in maintenance, unless that is for its power, and
// in the states that Ironic's power sync leaves out; and while work moves it, which switches it itself.
func (n *Node) PowerWatch() PowerWatch {
	switch {
	case n.Maintenance && n.Fault == FaultPower:
		return PowerRecovery
	case n.Maintenance, n.Provision.PowerSyncExcluded(), !n.Provision.Stable() && !n.Provision.Failed():
		return PowerIgnored
	default:
		return PowerRead
	}
}

// PowerIsNews tells whether what an agent saw of the node's power under an epoch changes anything: the agent has the node under
// that epoch, nobody is at work on it, and it is not what is known. PowerUnknown says that it could not be read, time after time.
func (n *Node) PowerIsNews(agent string, epoch uint64, saw Power) bool {
	if n.Owner != agent || n.Epoch != epoch || n.PrevOwner != "" || n.Lock.Held() || saw > PowerOff {
		return false
	}
	switch n.PowerWatch() {
	case PowerRead:
		return !n.FlowOpen && n.TargetPower == "" && (saw != n.Power || saw == PowerUnknown)
	case PowerRecovery: // also of a flow that waits for the end of maintenance
		return saw != PowerUnknown
	default:
		return false
	}
}
