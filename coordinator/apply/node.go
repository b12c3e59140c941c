package apply

import (
	"strings"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
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
	if s.Nodes.Has(n.ID) {
		return refuse(fault.New(fault.Exists, op, "there is a node %s", n.ID).WithDetail(&fault.FieldDetail{Field: "node.id"}))
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
	s.InsertNode(n, c.Node.Data[body:])
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
	j, err := s.take(c.Node.ID, op)
	if err != nil {
		return refuse(err)
	}
	n := j.n
	if c.Version != 0 && c.Version != n.Version {
		return refuse(fault.New(fault.VersionConflict, op, "node %s is at version %d, not %d", label(n), n.Version, c.Version).
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
	moved := n.Driver != j.before.Driver || n.Group != j.before.Group
	if n.Driver != j.before.Driver {
		if err := s.checkDriver(n.Driver, op); err != nil {
			return refuse(err)
		}
	}
	n.Version++
	n.UpdatedAt = s.Header.At
	s.Nodes.Put(&s.Log, n)
	if otherBMC(n, j.before) {
		s.BMCs.Drop(&s.Log, n.ID)
	}
	s.Emit(state.EventNodeUpdated, n, "fields", strings.Join(c.Fields, ","), "version", state.Num(n.Version))
	if moved {
		j = s.jobOf(n.ID)
		j.lockOnly = true
		j.setOwner(s.place(n), "group or driver changed")
		j.save()
	}
	return command.Result{Node: n.ID, Version: n.Version}
}

// mayUpdate is IRONIC's table of what a condition blocks.
func mayUpdate(n, in *node.Node, field string) error {
	const op = "update node"
	if free(field) {
		if field == "protected" && in.Protected && !n.Protected && n.Provision != lifecycle.Active && n.Provision != lifecycle.Rescue {
			return fault.New(fault.IllegalState, op, "node %s is %s: only active nodes are protected", label(n), n.Provision).WithDetail(stateDetail(n))
		}
		return nil
	}
	if n.Lock.Held() {
		return locked(n, op)
	}
	if n.TargetProvision != lifecycle.None && !n.Provision.UpdateAllowed() && !n.Maintenance {
		return fault.New(fault.IllegalState, op, "node %s is %s: %s cannot change now", label(n), n.Provision, field).
			WithHelp("wait for the work to end").WithDetail(stateDetail(n))
	}
	if field == "boot_mode" && n.Provision.Unstable() {
		return fault.New(fault.IllegalState, op, "node %s is %s: its boot mode cannot change now", label(n), n.Provision).
			WithHelp("wait for the work to end").WithDetail(stateDetail(n))
	}
	rewire := field == "driver" || field == "group" || field == "resource_class" && n.ResourceClass != ""
	switch {
	case rewire && (n.FlowOpen || !n.Provision.RewireAllowed() && (!n.Maintenance || field == "resource_class")):
		return fault.New(fault.IllegalState, op, "node %s is %s: its %s cannot change now", label(n), n.Provision, field).
			WithHelp("bring it to manageable first").WithDetail(stateDetail(n))
	case field == "retired" && in.Retired && n.Provision == lifecycle.Available:
		return fault.New(fault.IllegalState, op, "node %s is available: it could be handed out while it retires", label(n)).
			WithHelp("bring it to manageable first: farrier node manage %s", label(n)).WithDetail(stateDetail(n))
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
		return refuse(noNode(c.Node, op))
	case n.Lock.Held() && !(n.Maintenance && n.Lock.Session == "" && orphaned(n)):
		return refuse(locked(n, op))
	case n.Protected:
		return refuse(fault.New(fault.IllegalState, op, "node %s is protected: %s", label(n), n.ProtectedReason).
			WithHelp("farrier node set %s --protected=false", label(n)))
	case !n.Maintenance && (!n.Provision.DeleteAllowed() || n.Instance.UUID != "" || n.FlowOpen):
		return refuse(fault.New(fault.IllegalState, op, "node %s is %s", label(n), n.Provision).
			WithHelp("undeploy it first; a node in maintenance can be deleted in any state").WithDetail(stateDetail(n)))
	}
	if n.FlowOpen {
		f := s.Flow(n.Flow)
		s.places.give(countedAs(n, f))
		s.Emit(state.EventFlowClosed, n, "flow", flowText(f.ID), "kind", f.Kind.String(), "status", flow.Aborted.String(), "error", "the node was deleted")
	}
	for _, p := range s.PortsOf(n.ID) {
		s.Ports.Drop(&s.Log, p.ID)
	}
	if n.Flow != 0 {
		s.Flows.Drop(&s.Log, n.Flow)
	}
	s.Inventories.Drop(&s.Log, n.ID)
	s.BMCs.Drop(&s.Log, n.ID)
	s.Nodes.Drop(&s.Log, n.ID)
	s.Emit(state.EventNodeDeleted, n, "name", n.Name)
	return command.Result{Node: n.ID}
}

// setMaintenance sets or clears maintenance, without the lock. It pauses deploys and cleans at the end of the
// running step; when it is cleared they go on.
func (s *Applier) setMaintenance(c command.SetMaintenance) command.Result {
	j, err := s.take(c.Node, "set maintenance")
	if err != nil {
		return refuse(err)
	}
	j.maintain(c.On, state.Clip(c.Reason, 1024), c.Fault)
	j.advance()
	j.save()
	return command.Result{Node: c.Node, Version: j.n.Version}
}

// waiveWipe records that the node may become available without a wipe since its last tenancy.
func (s *Applier) waiveWipe(c command.WaiveWipe) command.Result {
	const op = "waive wipe"
	j, err := s.take(c.Node, op)
	if err != nil {
		return refuse(err)
	}
	n := j.n
	switch n.Provision {
	case lifecycle.Enroll, lifecycle.Manageable, lifecycle.Available, lifecycle.CleanFailed, lifecycle.InspectFailed,
		lifecycle.AdoptFailed, lifecycle.Error:
	default:
		return refuse(fault.New(fault.IllegalState, op, "node %s is %s: its tenancy is not over", label(n), n.Provision).
			WithHelp("undeploy it first").WithDetail(stateDetail(n)))
	}
	if n.Lock.Held() {
		return refuse(locked(n, op))
	}
	if strings.TrimSpace(c.Reason) == "" {
		return refuse(fault.New(fault.Invalid, op, "a waiver needs a reason").WithDetail(&fault.FieldDetail{Field: "reason"}))
	}
	j.setWipe(&node.Wipe{Method: wipeWaiver, Who: s.Header.Actor, Reason: state.Clip(c.Reason, 1024), At: s.Header.At})
	j.save()
	return command.Result{Node: c.Node, Version: j.n.Version}
}
