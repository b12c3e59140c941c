package apply

import (
	"strings"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// createNode inserts a node in state enroll with its ports, and places it. A node that no live agent can take is
// accepted without an owner; one whose hardware type no agent has ever offered is not, once there are agents.
func (s *Applier) createNode(c command.CreateNode) command.Result {
	const op = "create node"
	in, body, ok := node.UnpackHead(c.Node.Data)
	if !ok {
		return refuse(fault.New(fault.Invalid, op, "the node that it brings cannot be read"))
	}
	// Indexes and events keep texts: they must not keep the whole node's bytes alive.
	n := &node.Node{
		ID: node.ID(strings.Clone(string(in.ID))), Name: strings.Clone(in.Name), Driver: strings.Clone(in.Driver), Group: strings.Clone(in.Group),
		Provision:   lifecycle.Enroll,
		Description: in.Description, ResourceClass: in.ResourceClass, LesseeID: in.LesseeID, OwnerID: in.OwnerID,
		AutomatedClean: in.AutomatedClean, Retired: in.Retired, BootMode: in.BootMode, WeakBoot: in.WeakBoot,
		Version: 1, CreatedAt: s.Header.At, UpdatedAt: s.Header.At, ProvisionUpdatedAt: s.Header.At,
	}
	if err := s.checkNode(n, nodeSize(n)+len(c.Node.Data)-body, op); err != nil {
		return refuse(err)
	}
	if err := s.checkDriver(n.Driver, op); err != nil {
		return refuse(err)
	}
	if len(c.Ports) > state.MaxPortsPerNode {
		return refuse(fault.New(fault.TooLarge, op, "a node has at most %d ports", state.MaxPortsPerNode))
	}
	if n.Owner = s.placeNew(n); n.Owner != "" {
		n.Epoch = 1
	}
	if !s.InsertNode(n, c.Node.Data[body:]) {
		return refuse(fault.New(fault.Exists, op, "there is a node %s", n.ID).WithDetail(&fault.FieldDetail{Field: "node.id"}))
	}
	s.Emit(state.EventNodeCreated, n, "driver", n.Driver, "group", n.Group, "owner", n.Owner)
	for i := range c.Ports {
		p := c.Ports[i]
		p.Node = n.ID
		if err := s.insertPort(n, &p, op); err != nil {
			return refuse(err)
		}
	}
	return command.Result{Node: n.ID, Version: 1}
}

// checkNode checks what identifies a node, and the size of its free-form fields.
func (s *Applier) checkNode(n *node.Node, size int, op string) error {
	bad := func(kind fault.Kind, field, format string, args ...any) *fault.Error {
		return fault.New(kind, op, format, args...).WithDetail(&fault.FieldDetail{Field: "node." + field})
	}
	switch {
	case n.ID == "" || len(n.ID) > 64:
		return bad(fault.Invalid, "id", "a node needs an id of at most 64 bytes")
	case len(n.Name) > state.MaxNameLen:
		return bad(fault.TooLarge, "name", "a name has at most %d bytes", state.MaxNameLen)
	case n.Driver == "" || len(n.Driver) > state.MaxNameLen:
		return bad(fault.Invalid, "driver", "a node needs a hardware type")
	case size > state.MaxNodeSize:
		return bad(fault.TooLarge, "extra", "a node's fields have at most %d bytes", state.MaxNodeSize)
	}
	if n.Name != "" {
		if other := s.NodeNamed(n.Name); other != nil && other.ID != n.ID {
			return bad(fault.Exists, "name", "the name %q is taken by node %s", n.Name, other.ID).
				WithHelp("choose another name, or see the node that has it: farrier node show %s", n.Name)
		}
		if other := s.Node(node.ID(n.Name)); other != nil && other.ID != n.ID {
			return bad(fault.Exists, "name", "%q is the id of another node", n.Name)
		}
	}
	return nil
}

func nodeSize(n *node.Node) int {
	size := len(n.Description) + len(n.ResourceClass) + len(n.LesseeID) + len(n.OwnerID) + len(n.ProtectedReason)
	for _, m := range [...]map[string]string{n.Properties, n.Extra, n.DriverInfo} {
		for k, v := range m { // order does not matter: a sum
			size += len(k) + len(v)
		}
	}
	for k, v := range n.Secrets { // order does not matter: a sum
		size += len(k) + len(v.Box)
	}
	for _, t := range n.Traits {
		size += len(t)
	}
	return size
}

// checkDriver refuses a hardware type that no agent has ever offered. Before the first agent everything goes.
func (s *Applier) checkDriver(driver, op string) error {
	offered, agents := false, 0
	var names []string
	s.Agents.Scan(func(a *state.Agent) bool {
		if a.Removed {
			return true
		}
		agents++
		offered = offered || a.HasDriver(driver)
		names = append(names, a.Drivers...)
		return !offered
	})
	if offered || agents == 0 {
		return nil
	}
	return fault.New(fault.Invalid, op, "no agent offers the hardware type %q", state.Clip(driver, state.MaxNameLen)).
		WithHelp("offered: %s", state.Clip(strings.Join(names, ", "), 512)).WithDetail(&fault.FieldDetail{Field: "node.driver"})
}

// free are the fields that may change while a task holds the node: no task reads them.
func free(field string) bool {
	switch field {
	case "description", "extra", "owner", "lessee", "protected", "protected_reason":
		return true
	}
	return false
}

// updateNode changes the named fields. While a task holds the node it is refused, but for the free fields; and
// Ironic's rules for each field and state hold.
func (s *Applier) updateNode(c command.UpdateNode) command.Result {
	const op = "update node"
	before := s.Node(c.Node.ID)
	if before == nil {
		return refuse(node.Missing(c.Node.ID, op))
	}
	n := before.Clone()
	if c.Version != 0 && c.Version != n.Version {
		return refuse(fault.New(fault.VersionConflict, op, "node %s is at version %d, not %d", n.Label(), n.Version, c.Version).
			WithHelp("read it again and repeat the change"))
	}
	if len(c.Fields) == 0 {
		return refuse(fault.New(fault.Invalid, op, "no field is named"))
	}
	for _, field := range c.Fields {
		if err := mayUpdate(n, &c.Node, field); err != nil {
			return refuse(err)
		}
	}
	for _, field := range c.Fields {
		if !setField(n, &c.Node, field) {
			return refuse(fault.New(fault.Invalid, op, "a node has no field %q that can be changed", state.Clip(field, 64)).WithDetail(&fault.FieldDetail{Field: "mask"}))
		}
	}
	if n.ProtectedReason != "" && !n.Protected {
		return refuse(fault.New(fault.Invalid, op, "a protected reason goes with a protected node").WithDetail(&fault.FieldDetail{Field: "node.protected_reason"}))
	}
	if err := s.checkNode(n, nodeSize(n), op); err != nil {
		return refuse(err)
	}
	moved := n.Driver != before.Driver || n.Group != before.Group
	if n.Driver != before.Driver {
		if err := s.checkDriver(n.Driver, op); err != nil {
			return refuse(err)
		}
	}
	n.Version++
	n.UpdatedAt = s.Header.At
	s.Nodes.Put(&s.Log, n)
	if otherBMC(n, before) {
		s.BMCs.Drop(&s.Log, n.ID)
	}
	s.Emit(state.EventNodeUpdated, n, "fields", strings.Join(c.Fields, ","), "version", state.Num(n.Version))
	if moved {
		s.jobs.Rehome(n.ID, s.place(n), "group or driver changed")
	}
	return command.Result{Node: n.ID, Version: n.Version}
}

// mayUpdate is IRONIC's table of what a condition blocks.
func mayUpdate(n, in *node.Node, field string) error {
	const op = "update node"
	if free(field) {
		if field == "protected" && in.Protected && !n.Protected && n.Provision != lifecycle.Active && n.Provision != lifecycle.Rescue {
			return fault.New(fault.IllegalState, op, "node %s is %s: only active nodes are protected", n.Label(), n.Provision).WithDetail(n.StateDetail())
		}
		return nil
	}
	if n.Lock.Held() {
		return n.Locked(op)
	}
	if n.TargetProvision != lifecycle.None && !n.Provision.UpdateAllowed() && !n.Maintenance {
		return fault.New(fault.IllegalState, op, "node %s is %s: %s cannot change now", n.Label(), n.Provision, field).
			WithHelp("wait for the work to end").WithDetail(n.StateDetail())
	}
	if field == "boot_mode" && n.Provision.Unstable() {
		return fault.New(fault.IllegalState, op, "node %s is %s: its boot mode cannot change now", n.Label(), n.Provision).
			WithHelp("wait for the work to end").WithDetail(n.StateDetail())
	}
	rewire := field == "driver" || field == "group" || field == "resource_class" && n.ResourceClass != ""
	switch {
	case rewire && (n.FlowOpen || !n.Provision.RewireAllowed() && (!n.Maintenance || field == "resource_class")):
		return fault.New(fault.IllegalState, op, "node %s is %s: its %s cannot change now", n.Label(), n.Provision, field).
			WithHelp("bring it to manageable first").WithDetail(n.StateDetail())
	case field == "retired" && in.Retired && n.Provision == lifecycle.Available:
		return fault.New(fault.IllegalState, op, "node %s is available: it could be handed out while it retires", n.Label()).
			WithHelp("bring it to manageable first: farrier node manage %s", n.Label()).WithDetail(n.StateDetail())
	}
	return nil
}

// setField copies one field, named by its path in the API; false when there is no such field.
func setField(n, in *node.Node, field string) bool {
	switch field {
	case "name":
		n.Name = in.Name
	case "driver":
		n.Driver = in.Driver
	case "group":
		n.Group = in.Group
	case "description":
		n.Description = in.Description
	case "resource_class":
		n.ResourceClass = in.ResourceClass
	case "traits":
		n.Traits = in.Traits
	case "properties":
		n.Properties = in.Properties
	case "driver_info":
		n.DriverInfo, n.Secrets = in.DriverInfo, in.Secrets
	case "extra":
		n.Extra = in.Extra
	case "automated_clean":
		n.AutomatedClean = in.AutomatedClean
	case "protected":
		if n.Protected = in.Protected; !in.Protected {
			n.ProtectedReason = ""
		}
	case "protected_reason":
		n.ProtectedReason = in.ProtectedReason
	case "retired":
		n.Retired = in.Retired
	case "owner":
		n.OwnerID = in.OwnerID
	case "lessee":
		n.LesseeID = in.LesseeID
	case "boot_mode":
		n.BootMode = in.BootMode
	case "weak_boot":
		n.WeakBoot = in.WeakBoot
	default:
		return false
	}
	return true
}

// deleteNode removes a node, its ports, inventory and flow. Maintenance lets it go from any state but under a
// held lock, unless that waits for an agent; an open flow that waits ends with it, and reports of it are late from then on.
func (s *Applier) deleteNode(c command.DeleteNode) command.Result {
	const op = "delete node"
	n := s.Node(c.Node)
	switch {
	case n == nil:
		return refuse(node.Missing(c.Node, op))
	case n.Lock.Held() && !(n.Maintenance && n.Lock.Session == "" && n.Orphaned()):
		return refuse(n.Locked(op))
	case n.Protected:
		return refuse(fault.New(fault.IllegalState, op, "node %s is protected: %s", n.Label(), n.ProtectedReason).
			WithHelp("farrier node set %s --protected=false", n.Label()))
	case !n.Maintenance && (!n.Provision.DeleteAllowed() || n.Instance.UUID != "" || n.FlowOpen):
		return refuse(fault.New(fault.IllegalState, op, "node %s is %s", n.Label(), n.Provision).
			WithHelp("undeploy it first; a node in maintenance can be deleted in any state").WithDetail(n.StateDetail()))
	}
	s.jobs.Forget(n)
	for _, p := range s.PortsOf(n.ID) {
		s.Ports.Drop(&s.Log, p.ID)
	}
	s.Inventories.Drop(&s.Log, n.ID)
	s.BMCs.Drop(&s.Log, n.ID)
	s.Nodes.Drop(&s.Log, n.ID)
	s.Emit(state.EventNodeDeleted, n, "name", n.Name)
	return command.Result{Node: n.ID}
}
