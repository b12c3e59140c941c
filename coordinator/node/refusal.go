package node

import (
	"fmt"

	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Label is what people call the node.
func (n *Node) Label() string {
	if n.Name != "" {
		return n.Name
	}
	return string(n.ID)
}

// Missing is the refusal of a command that names a node that is not there.
func Missing(id ID, op string) error {
	return fault.New(fault.NotFound, op, "there is no node %q", id).WithHelp("farrier node list")
}

// Locked is the refusal of a command that meets a held lock. Its caller may wait in the node's queue.
func (n *Node) Locked(op string) error {
	l := n.Lock
	holder := l.Holder
	help := fmt.Sprintf("wait, or look at it: farrier lock list; an operator may break it: farrier lock break %s --reason TEXT", n.Label())
	if holder == "" {
		holder = "nobody: it waits for an agent"
		help = fmt.Sprintf("start an agent of its group, or give the work up: farrier node abort %s", n.Label())
	}
	return fault.New(fault.Locked, op, "node %s is locked by %s (%s) under token %s", n.Label(), holder, l.Purpose, l.Token).
		WithHelp("%s", help).
		WithDetail(&fault.LockDetail{
			Node: string(n.ID), Holder: l.Holder, Session: l.Session, Task: l.Task, Purpose: l.Purpose,
			Token: uint64(l.Token), SinceUnixNano: l.Since.UnixNano(),
		})
}

// StateDetail is what a refusal for the node's provision state says of it.
func (n *Node) StateDetail() *fault.StateDetail {
	d := &fault.StateDetail{State: n.Provision.String()}
	for _, v := range lifecycle.LegalVerbs(n.Provision) {
		d.LegalVerbs = append(d.LegalVerbs, v.String())
	}
	return d
}
