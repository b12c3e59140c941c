package state

import (
	"strconv"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
)

// Position is a place in the order of events: after the event with this index and ordinal.
type Position struct {
	Index   uint64
	Ordinal uint32
}

// Less orders positions.
func (p Position) Less(q Position) bool {
	return p.Index < q.Index || p.Index == q.Index && p.Ordinal < q.Ordinal
}

// Event is one fact. It carries no object body and no secret.
type Event struct {
	Index    uint64
	Ordinal  uint32
	Type     string    // one of the Event constants
	Node     node.ID   // "" when it is about no node
	NodeName string    // at that time
	At       time.Time // the proposer's wall clock: for people
	Actor    string
	Fields   map[string]string
}

// Position is the event's own.
func (e Event) Position() Position { return Position{e.Index, e.Ordinal} }

// The event types, each with its fields. Numbers are decimal text, booleans "true" and "false".
const (
	EventNodeCreated   = "node.created"         // driver, group, owner
	EventNodeUpdated   = "node.updated"         // fields (comma list), version
	EventNodeDeleted   = "node.deleted"         // name
	EventNodeProvision = "node.provision_state" // from, to, target
	EventNodePower     = "node.power_state"     // from, to; seen: it was found so, nobody here did it
	EventMaintenance   = "node.maintenance"     // on, reason, fault
	EventNodeOwner     = "node.owner"           // from, to, epoch, reason; previous when its acknowledgement is awaited
	EventNodeHandover  = "node.handover"        // agent, epoch: the old owner acknowledged
	EventNodeWipe      = "node.wipe"            // method, disks, sampled, who, reason
	EventPortCreated   = "port.created"         // port, address
	EventPortUpdated   = "port.updated"         // port, fields
	EventPortDeleted   = "port.deleted"         // port, address

	EventFlowOpened = "flow.opened"   // flow, kind, verb, queued
	EventFlowAdmit  = "flow.admitted" // flow, kind: a place under the concurrency limit is free
	EventFlowStep   = "flow.step"     // flow, kind, step, name, state, attempt, token, error, boot; see StepState constants
	EventFlowAbort  = "flow.abort"    // flow, by, delete
	EventFlowLate   = "flow.late"     // flow, step, attempt, ok: a report of a closed attempt, which changed nothing
	EventFlowEdge   = "flow.edge"     // flow, kind, boot, detail: what the rack saw (first_contact, silent, ...)
	EventFlowClosed = "flow.closed"   // flow, kind, status, error

	EventLockGranted  = "lock.granted"  // token, holder, task, purpose, flow; not of a lock that an agent takes without a flow,
	EventLockReleased = "lock.released" // token, holder; nor its release by the agent itself
	EventLockBroken   = "lock.broken"   // token, holder, reason

	EventAgentSession = "agent.session" // agent, state (opened, resumed, replaced, ended), session, incarnation, reason
	EventAgentDrain   = "agent.drain"   // agent, on, moving
	EventAgentRemoved = "agent.removed" // agent, moved
	EventRingEpoch    = "ring.epoch"    // group, driver, epoch
	EventClientEnded  = "client.ended"  // client, holder

	EventSettings    = "cluster.settings"    //
	EventLevel       = "cluster.level"       // from, to
	EventGeneration  = "cluster.generation"  // generation, reason
	EventMember      = "cluster.member"      // member, state (joined, changed, removed)
	EventJoinToken   = "cluster.join_token"  // token, state (created, used, expired, revoked), role, name
	EventCertificate = "cluster.certificate" // role, name, key (its first 8 bytes), state (revoked), reason
	EventAlarm       = "alarm"               // text
)

// The values of a flow.step event's field state.
const (
	StepOpened  = "opened"  // an attempt is open
	StepDone    = "done"    //
	StepRetry   = "retry"   // the attempt failed; another follows
	StepFailed  = "failed"  //
	StepAborted = "aborted" //
	StepSkipped = "skipped" //
	StepReboot  = "reboot"  // the ramdisk was lost: a fresh boot attempt follows
	StepRegrant = "regrant" // the same attempt under a new token, for a new owner
)

// event is the compact form that is kept: the pairs in the order of emission.
type event = command.Event

func fromStored(e *event) Event {
	fields := make(map[string]string, len(e.Fields))
	for _, f := range e.Fields {
		fields[f.Key] = f.Value
	}
	return Event{Index: e.Index, Ordinal: e.Ordinal, Type: e.Type, Node: e.Node, NodeName: e.NodeName, At: e.At, Actor: e.Actor, Fields: fields}
}

// Emit adds an event of the command in work; pairs are key, value, key, value.
func (s *State) Emit(kind string, n *node.Node, pairs ...string) {
	e := &event{Index: s.Root.index, Ordinal: s.Root.ordinal, Type: kind, At: s.Header.At, Actor: s.Header.Actor}
	if n != nil {
		e.Node, e.NodeName = n.ID, n.Name
	}
	e.Fields = make([]command.Field, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			e.Fields = append(e.Fields, command.Field{Key: pairs[i], Value: pairs[i+1]})
		}
	}
	s.Root.ordinal++
	s.emitted = append(s.emitted, e)
	s.events.Put(&s.Log, e)
	if s.events.Len() > MaxEvents {
		oldest, _ := s.events.First()
		s.Root.evicted = oldest
		s.events.Drop(&s.Log, oldest)
	}
}

// Emitted is the events of the command in work, or of the newest one.
func (s *State) Emitted() []Event {
	events := make([]Event, len(s.emitted))
	for i, e := range s.emitted {
		events[i] = fromStored(e)
	}
	return events
}

// ForgetEvents drops all events so far: whoever watches from before the next one is told that they are gone.
func (s *State) ForgetEvents() {
	for s.events.Len() > 0 {
		oldest, _ := s.events.First()
		s.events.Drop(&s.Log, oldest)
	}
	if s.Root.ordinal > 0 {
		s.Root.evicted = Position{s.Root.index, s.Root.ordinal - 1}
	} else {
		s.Root.evicted = Position{s.Root.index - 1, ^uint32(0)}
	}
}

// Num is a number as an event has it.
func Num[N ~uint64 | ~uint32 | ~int | ~uint8 | ~uint16](n N) string {
	return strconv.FormatUint(uint64(n), 10)
}
