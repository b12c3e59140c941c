package work

import "time"

// Event is one thing that happened. The set is closed.
type Event interface{ event() }

type (
	// Restored gives back what the journal holds, once, before anything else.
	Restored struct{ Records []Record }
	// Greeted says that hello was sent on a fresh stream.
	Greeted struct{}
	// Welcomed is the coordinator's answer: the session is open. Unless Resumed, an earlier session is over.
	Welcomed struct {
		Session string
		TTL     time.Duration
		Resumed bool
	}
	// Renewing says that renewal Seq is about to be sent.
	Renewing struct{ Seq uint64 }
	// Renewed says that the tick with renewal Seq was applied.
	Renewed struct{ Seq uint64 }
	// Ended says that the session is over.
	Ended struct{ Reason string }
	// Lost says that the stream broke. The session lives on until it expires.
	Lost struct{}

	// Assigned gives a node to this agent.
	Assigned struct {
		Node         string
		Token, Epoch uint64
	}
	// Recalled says that the agent serves a node from before its restart: it must be named again, or is gone.
	Recalled struct {
		Node  string
		Epoch uint64
	}
	// Unassigned takes a node away.
	Unassigned struct {
		Node  string
		Epoch uint64
	}
	// Synced says that everything has been named since Welcomed: what was not is gone.
	Synced struct{}

	// Ordered brings an order.
	Ordered struct{ Order Order }
	// Cancelled asks to stop an attempt.
	Cancelled struct {
		Ref    Ref
		Reason string
	}
	// Confirmed says that the outcome is committed.
	Confirmed struct{ Ref Ref }
	// Finished says that an attempt ended here.
	Finished struct{ Outcome Outcome }
	// Reported says what a ramdisk reports of an attempt. It is believed of its own boot attempt's ramdisk steps only.
	Reported struct{ Outcome Outcome }
	// Intending says that the attempt is about to begin an effect.
	Intending struct{ Ref Ref }
	// Granted says that the agent asked for the node's lock and got it under a token.
	Granted struct {
		Node  string
		Token uint64
	}
	// Resized changes how many bmc and agent steps may run at once.
	Resized struct{ Workers int }
	// Ticked lets time pass.
	Ticked struct{}
)

func (Restored) event()   {}
func (Greeted) event()    {}
func (Welcomed) event()   {}
func (Renewing) event()   {}
func (Renewed) event()    {}
func (Ended) event()      {}
func (Lost) event()       {}
func (Assigned) event()   {}
func (Recalled) event()   {}
func (Unassigned) event() {}
func (Synced) event()     {}
func (Ordered) event()    {}
func (Cancelled) event()  {}
func (Confirmed) event()  {}
func (Finished) event()   {}
func (Reported) event()   {}
func (Intending) event()  {}
func (Granted) event()    {}
func (Resized) event()    {}
func (Ticked) event()     {}

// Effect is one thing to do, in the order given. The set is closed.
type Effect interface{ effect() }

type (
	// Lease says until when (boottime) effects on BMCs may start.
	Lease struct{ Until time.Duration }
	// Start runs a bmc or agent step on a worker.
	Start struct{ Order Order }
	// Deliver hands a ramdisk step on.
	Deliver struct{ Order Order }
	// Retoken says that a running attempt now holds a newer token.
	Retoken struct {
		Ref   Ref
		Token uint64
	}
	// Stop cancels an attempt. Quiet: its outcome is of no interest (the session or the attempt is over).
	Stop struct {
		Order  Order
		Reason string
		Quiet  bool
	}
	// Report sends an outcome up.
	Report struct{ Outcome Outcome }
	// Save writes a node's record to the journal. Wait: before the next effect.
	Save struct {
		Record Record
		Wait   bool
	}
	// Forget drops a node that is no longer this agent's: boot environment, caches.
	Forget struct {
		Node  string
		Epoch uint64
		Ack   bool // tell the coordinator that it is done
	}
	// Erase takes a node's Record out of the journal.
	Erase struct{ Node string }
	// Overflow says that nothing is known of a node and nothing will be done for it: MaxNodes others are here.
	Overflow struct{ Node string }
	// Refuse says that an order was not taken, and why. Nothing is reported: the attempt that is open is another.
	Refuse struct {
		Order Order
		Err   error
	}
	// Reject says that a ramdisk's report was not believed, and why.
	Reject struct {
		Outcome Outcome
		Err     error
	}
)

func (Lease) effect()    {}
func (Erase) effect()    {}
func (Overflow) effect() {}
func (Start) effect()    {}
func (Deliver) effect()  {}
func (Retoken) effect()  {}
func (Stop) effect()     {}
func (Report) effect()   {}
func (Save) effect()     {}
func (Forget) effect()   {}
func (Refuse) effect()   {}
func (Reject) effect()   {}
