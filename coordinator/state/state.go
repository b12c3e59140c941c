package state

import (
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/table"
)

// Level is the highest feature level that this code computes.
const Level = 1

// State is the replicated state, and the command that changes it. It belongs to one goroutine: see the package's
// documentation.
type State struct {
	Tables
	packed node.ID // how far PackSome came
	near   table.Cursor[node.ID, node.Node]

	// The command in work.
	Header  command.Header
	Log     table.Log // every change of a table goes through it
	emitted []*event
}

// New is the empty state: the first command must be InitCluster.
func New() *State {
	s := &State{}
	s.Tables.init()
	s.near = table.NewCursor(&s.Nodes)
	return s
}

// Begin begins a command of the log entry at index. The changes of the one before stay.
func (s *State) Begin(index uint64, h command.Header) {
	if index != s.Root.index {
		s.Root.index, s.Root.ordinal = index, 0
	}
	s.Header = h
	s.Log.Begin()
	clear(s.emitted)
	s.emitted = s.emitted[:0]
}

// Mark is how far a command has come.
type Mark struct {
	log, emitted int
	root         Root
}

// Mark is where to come back to by Rollback.
func (s *State) Mark() Mark { return Mark{s.Log.Mark(), len(s.emitted), s.Root} }

// Rollback takes back everything since a Mark of the command in work: records, root and events.
func (s *State) Rollback(m Mark) {
	s.Log.Rollback(m.log)
	s.emitted = s.emitted[:m.emitted]
	s.Root = m.root
}

// Index is the log index of the command in work, or of the newest one.
func (s *State) Index() uint64 { return s.Root.index }

// Hash compares replicas: equal logs have equal hashes.
func (s *State) Hash() [16]byte { return s.hash() }

// Roster is a number that differs whenever the roster does.
func (s *State) Roster() uint64 { return s.Certificates.Sum() }

// Node is the tables', but opens a packed node once although a command looks at it several times.
func (s *State) Node(id node.ID) *node.Node { return s.near.Find(id) }

// ReplaceNode puts a node in place of the one that Node answered.
func (s *State) ReplaceNode(old, n *node.Node) { s.near.Replace(&s.Log, old, n) }

// InsertNode adds a node that comes packed: n, of which only the head is looked at, with a body in node.PackForm. It changes
// nothing, and answers so, if there is one with its id.
func (s *State) InsertNode(n *node.Node, body string) (added bool) {
	h := s.Log.Hasher()
	h.Reset()
	node.WriteHead(h, n)
	head := h.Len()
	h.Plain(body)
	return s.Nodes.AddPacked(&s.Log, n, packedNode(h, string(h.Bytes()), head))
}

// Raise adds an alarm, unless the same is among those that are kept.
func (s *State) Raise(text string) {
	seen := false
	s.alarms.Scan(func(a *Alarm) bool { seen = a.Text == text; return !seen })
	if seen {
		return
	}
	s.Root.alarms++
	s.alarms.Put(&s.Log, &Alarm{ID: s.Root.alarms, Index: s.Root.index, At: s.Header.At, Text: text})
	if s.alarms.Len() > MaxAlarms {
		oldest, _ := s.alarms.First()
		s.alarms.Drop(&s.Log, oldest)
	}
	s.Emit(EventAlarm, nil, "text", text)
}

// KeepMembership takes over from the state that this one replaces who belongs to the cluster: the roster, the join tokens, and
// where coordinators answer. A restore of an old archive must neither bring a revoked key back nor lock anybody out who is
// let in today. What ends with elapsed has as long as it had.
func (s *State) KeepMembership(living *State) {
	shift := s.Root.Elapsed - living.Root.Elapsed
	s.Certificates.CopyFrom(s.Log.Hasher(), &living.Certificates, func(c *Certificate) { c.Ends += shift })
	s.JoinTokens.CopyFrom(s.Log.Hasher(), &living.JoinTokens, func(t *JoinToken) { t.Expires += shift })
	s.Members.CopyFrom(s.Log.Hasher(), &living.Members, func(*command.Member) {})
	var back []string // removed in the archive, and believed again since
	s.Agents.Scan(func(a *Agent) bool {
		if now := living.Agent(a.Name); a.Removed && (now == nil || !now.Removed) {
			back = append(back, a.Name)
		}
		return true
	})
	for _, name := range back {
		s.Agents.Unload(s.Log.Hasher(), name)
	}
}
