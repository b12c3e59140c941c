// Package step describes what a step is, for the rooms that offer steps and for those that run them: its
// class decides what happens after an unknown outcome.
package step

import "fmt"

// Class says what may be done when nobody knows whether a step took effect.
type Class uint8

// The classes.
const (
	_          Class = iota
	Read             // repeat
	Set              // repeat until the read-back matches
	Onceish          // read first; repeat at most once, where harmless
	Converging       // resume from the chunk map, or from the start
	OneShot          // never repeat blindly: observe until the deadline, then ask the operator
)

var classText = [...]string{Read: "read", Set: "set", Onceish: "once-ish", Converging: "converging", OneShot: "one-shot"} // read-only

func (c Class) String() string {
	if c > 0 && int(c) < len(classText) {
		return classText[c]
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// ParseClass reads a class's text; ok is false for unknown text.
func ParseClass(text string) (c Class, ok bool) {
	for c := Read; c <= OneShot; c++ {
		if classText[c] == text {
			return c, true
		}
	}
	return 0, false
}

// Executor says where a step runs.
type Executor uint8

// The executors.
const (
	_       Executor = iota
	BMC              // the rack agent's driver, against the BMC
	Agent            // the rack agent itself: boot environment
	Ramdisk          // the machine, in the ramdisk
	Wait             // nowhere: it ends when the ramdisk's first contact is reported
)

var executorText = [...]string{BMC: "bmc", Agent: "agent", Ramdisk: "ramdisk", Wait: "wait"} // read-only

func (e Executor) String() string {
	if e > 0 && int(e) < len(executorText) {
		return executorText[e]
	}
	return fmt.Sprintf("executor(%d)", uint8(e))
}

// ParseExecutor reads an executor's text; ok is false for unknown text.
func ParseExecutor(text string) (e Executor, ok bool) {
	for e := BMC; e <= Wait; e++ {
		if executorText[e] == text {
			return e, true
		}
	}
	return 0, false
}
