package apply

import (
	"strings"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

func (s *Applier) insertPort(n *node.Node, p *node.Port, op string) error {
	if err := s.checkPort(p, op); err != nil {
		return err
	}
	if s.Port(p.ID) != nil {
		return fault.New(fault.Exists, op, "there is a port %s", p.ID).WithDetail(&fault.FieldDetail{Field: "port.id"})
	}
	p.Version = 1
	s.Ports.Put(&s.Log, p)
	s.Emit(state.EventPortCreated, n, "port", p.ID, "address", p.Address)
	return nil
}

// checkPort checks a port's own values and that its address is nobody else's.
func (s *Applier) checkPort(p *node.Port, op string) error {
	bad := func(kind fault.Kind, field, format string, args ...any) *fault.Error {
		return fault.New(kind, op, format, args...).WithDetail(&fault.FieldDetail{Field: "port." + field})
	}
	if p.ID == "" || len(p.ID) > 64 || len(p.Name) > state.MaxNameLen || len(p.IP) > 64 {
		return bad(fault.Invalid, "id", "a port needs an id of at most 64 bytes")
	}
	if !unicastMAC(p.Address) {
		return bad(fault.Invalid, "address", "%q is not a unicast MAC address in lower case with colons", state.Clip(p.Address, 64))
	}
	if other := s.PortByMAC(p.Address); other != nil && other.ID != p.ID {
		owner := string(other.Node)
		if n := s.Node(other.Node); n != nil {
			owner = n.Label()
		}
		return bad(fault.Exists, "address", "the MAC address %s is taken by a port of node %s", p.Address, owner).
			WithHelp("look at both machines' labels; if the other one is wrong: farrier port delete %s", p.Address)
	}
	return nil
}

// unicastMAC tells whether text is six lower-case hex pairs with colons, and not a group address.
func unicastMAC(text string) bool {
	const hex = "0123456789abcdef"
	if len(text) != 17 {
		return false
	}
	for i := range len(text) {
		if i%3 == 2 && text[i] != ':' || i%3 != 2 && strings.IndexByte(hex, text[i]) < 0 {
			return false
		}
	}
	return strings.IndexByte(hex, text[1])&1 == 0
}

func (s *Applier) createPort(c command.CreatePort) command.Result {
	const op = "create port"
	p := c.Port
	n := s.Node(p.Node)
	switch {
	case n == nil:
		return refuse(node.Missing(p.Node, op))
	case n.Lock.Held():
		return refuse(n.Locked(op))
	case len(s.PortsOf(n.ID)) >= state.MaxPortsPerNode:
		return refuse(fault.New(fault.TooLarge, op, "node %s has %d ports, which is the most", n.Label(), state.MaxPortsPerNode))
	}
	if err := s.insertPort(n, &p, op); err != nil {
		return refuse(err)
	}
	return command.Result{Node: n.ID, Version: 1}
}

func (s *Applier) updatePort(c command.UpdatePort) command.Result {
	const op = "update port"
	old := s.Port(c.Port.ID)
	if old == nil {
		return refuse(noPort(c.Port.ID, op))
	}
	n := s.Node(old.Node)
	switch {
	case c.Version != 0 && c.Version != old.Version:
		return refuse(fault.New(fault.VersionConflict, op, "port %s is at version %d, not %d", old.ID, old.Version, c.Version).WithHelp("read it again and repeat the change"))
	case n.Lock.Held():
		return refuse(n.Locked(op))
	}
	p := *old
	for _, field := range c.Fields {
		if err := setPortField(n, &p, &c.Port, field); err != nil {
			return refuse(err)
		}
	}
	if err := s.checkPort(&p, op); err != nil {
		return refuse(err)
	}
	p.Version++
	s.Ports.Put(&s.Log, &p)
	s.Emit(state.EventPortUpdated, n, "port", p.ID, "fields", strings.Join(c.Fields, ","))
	return command.Result{Node: n.ID, Version: p.Version}
}

// setPortField copies one field, under Ironic's rules.
func setPortField(n *node.Node, p, in *node.Port, field string) error {
	const op = "update port"
	switch field {
	case "name":
		p.Name = in.Name
	case "ip":
		p.IP = in.IP
	case "address":
		if p.Address != in.Address && !n.Maintenance && (n.Provision == lifecycle.Active || n.Instance.UUID != "") {
			return fault.New(fault.IllegalState, op, "node %s is %s: an address cannot change under an instance", n.Label(), n.Provision).
				WithHelp("set maintenance first").WithDetail(n.StateDetail())
		}
		p.Address = in.Address
	case "pxe_enabled":
		switch n.Provision {
		case lifecycle.Enroll, lifecycle.Inspecting, lifecycle.InspectWait, lifecycle.Manageable:
		default:
			if !n.Maintenance && p.PXEEnabled != in.PXEEnabled {
				return fault.New(fault.IllegalState, op, "node %s is %s: pxe_enabled cannot change now", n.Label(), n.Provision).
					WithHelp("bring it to manageable, or set maintenance").WithDetail(n.StateDetail())
			}
		}
		p.PXEEnabled = in.PXEEnabled
	default:
		return fault.New(fault.Invalid, op, "a port has no field %q that can be changed", state.Clip(field, 64)).WithDetail(&fault.FieldDetail{Field: "mask"})
	}
	return nil
}

func (s *Applier) deletePort(c command.DeletePort) command.Result {
	const op = "delete port"
	p := s.Port(c.Port)
	if p == nil {
		return refuse(noPort(c.Port, op))
	}
	n := s.Node(p.Node)
	if n.Lock.Held() {
		return refuse(n.Locked(op))
	}
	s.Ports.Drop(&s.Log, p.ID)
	s.Emit(state.EventPortDeleted, n, "port", p.ID, "address", p.Address)
	return command.Result{Node: n.ID}
}

func noPort(id, op string) error {
	return fault.New(fault.NotFound, op, "there is no port %q", state.Clip(id, 64)).WithHelp("farrier port list")
}
