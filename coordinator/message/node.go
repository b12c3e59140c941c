package message

import (
	"maps"
	"slices"
	"strings"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/state"
)

// field is one property of a node that callers may set, named by its path in the Node message.
type field struct {
	path   string
	set    func(r *Reader, n *node.Node, in *farrierv1.Node) error
	setKey func(r *Reader, n *node.Node, in *farrierv1.Node, key string) error // of maps: one key
}

// nodeFields are all of them. Everything else of a node is found out or decided, and cannot be set.
var nodeFields = []field{ // read-only
	{path: "name", set: func(_ *Reader, n *node.Node, in *farrierv1.Node) error {
		n.Name = in.GetName()
		if n.Name == "" {
			return nil
		}
		return Name("node.name", n.Name)
	}},
	{path: "driver", set: func(_ *Reader, n *node.Node, in *farrierv1.Node) error {
		n.Driver = in.GetDriver()
		return Name("node.driver", n.Driver)
	}},
	{path: "group", set: func(_ *Reader, n *node.Node, in *farrierv1.Node) error {
		n.Group = in.GetGroup()
		if n.Group == "" {
			n.Group = DefaultGroup
		}
		return Name("node.group", n.Group)
	}},
	{path: "description", set: func(_ *Reader, n *node.Node, in *farrierv1.Node) error {
		n.Description = in.GetDescription()
		return Text("node.description", n.Description, MaxText)
	}},
	{path: "resource_class", set: func(_ *Reader, n *node.Node, in *farrierv1.Node) error {
		n.ResourceClass = in.GetResourceClass()
		return Text("node.resource_class", n.ResourceClass, maxClass)
	}},
	{path: "traits", set: setTraits},
	{path: "properties",
		set: func(_ *Reader, n *node.Node, in *farrierv1.Node) error {
			n.Properties = maps.Clone(in.GetProperties())
			return checkMap("node.properties", n.Properties, maxMap)
		},
		setKey: func(_ *Reader, n *node.Node, in *farrierv1.Node, key string) error {
			value, has := in.GetProperties()[key]
			n.Properties = mergeKey(n.Properties, key, value, has)
			return checkMap("node.properties", n.Properties, maxMap)
		}},
	{path: "extra",
		set: func(_ *Reader, n *node.Node, in *farrierv1.Node) error {
			n.Extra = maps.Clone(in.GetExtra())
			return checkMap("node.extra", n.Extra, maxMap)
		},
		setKey: func(_ *Reader, n *node.Node, in *farrierv1.Node, key string) error {
			value, has := in.GetExtra()[key]
			n.Extra = mergeKey(n.Extra, key, value, has)
			return checkMap("node.extra", n.Extra, maxMap)
		}},
	{path: "driver_info",
		set: func(r *Reader, n *node.Node, in *farrierv1.Node) (err error) {
			n.DriverInfo, n.Secrets, err = r.splitInfo(n.ID, in.GetDriverInfo(), n.Secrets)
			return err
		},
		setKey: setDriverInfoKey},
	{path: "automated_clean", set: func(_ *Reader, n *node.Node, in *farrierv1.Node) error {
		n.AutomatedClean = in.AutomatedClean
		return nil
	}},
	{path: "protected", set: func(_ *Reader, n *node.Node, in *farrierv1.Node) error {
		n.Protected = in.GetProtected()
		return nil
	}},
	{path: "protected_reason", set: func(_ *Reader, n *node.Node, in *farrierv1.Node) error {
		n.ProtectedReason = in.GetProtectedReason()
		return Text("node.protected_reason", n.ProtectedReason, MaxText)
	}},
	{path: "retired", set: func(_ *Reader, n *node.Node, in *farrierv1.Node) error {
		n.Retired = in.GetRetired()
		return nil
	}},
	{path: "owner", set: func(_ *Reader, n *node.Node, in *farrierv1.Node) error {
		n.OwnerID = in.GetOwner()
		return Text("node.owner", n.OwnerID, MaxName)
	}},
	{path: "lessee", set: func(_ *Reader, n *node.Node, in *farrierv1.Node) error {
		n.LesseeID = in.GetLessee()
		return Text("node.lessee", n.LesseeID, MaxName)
	}},
	{path: "boot_mode", set: func(_ *Reader, n *node.Node, in *farrierv1.Node) error {
		n.BootMode = in.GetBootMode()
		if n.BootMode != "" && n.BootMode != "bios" && n.BootMode != "uefi" {
			return refusal.Invalid("node.boot_mode", "%q is not bios or uefi", refusal.Clip(n.BootMode))
		}
		return nil
	}},
}

func setTraits(_ *Reader, n *node.Node, in *farrierv1.Node) error {
	traits := slices.Clone(in.GetTraits())
	slices.Sort(traits)
	n.Traits = slices.Compact(traits)
	if len(n.Traits) > maxTraits {
		return refusal.Invalid("node.traits", "at most %d traits are allowed", maxTraits)
	}
	for _, t := range n.Traits {
		if !traitRE.MatchString(t) {
			return refusal.Invalid("node.traits", "%q may hold capital letters, digits and _ after a letter", refusal.Clip(t)).
				WithHelp("own traits begin with CUSTOM_")
		}
	}
	return nil
}

func setDriverInfoKey(r *Reader, n *node.Node, in *farrierv1.Node, key string) (err error) {
	info := maps.Clone(n.DriverInfo)
	if info == nil {
		info = map[string]string{}
	}
	for k := range n.Secrets {
		info[k] = hidden
	}
	if value, has := in.GetDriverInfo()[key]; has {
		info[key] = value
	} else {
		delete(info, key)
	}
	n.DriverInfo, n.Secrets, err = r.splitInfo(n.ID, info, n.Secrets)
	return err
}

// lookupField finds the field that a path of an update names.
func lookupField(path string) (field, error) {
	for _, f := range nodeFields {
		if path == f.path || f.setKey != nil && strings.HasPrefix(path, f.path+".") {
			return f, nil
		}
	}
	names := make([]string, 0, len(nodeFields))
	for _, f := range nodeFields {
		names = append(names, f.path)
	}
	return field{}, refusal.Invalid("mask", "%q cannot be changed", refusal.Clip(path)).
		WithHelp("what can be: %s; states, power and maintenance have calls of their own", strings.Join(names, ", "))
}

// NewNode checks a node to be created, seals its secrets, and makes the command. fallback is its id unless the
// request has one.
func (r *Reader) NewNode(v *state.View, in *farrierv1.Node, fallback string) (command.CreateNode, error) {
	if in == nil {
		return command.CreateNode{}, refusal.Invalid("node", "it is missing")
	}
	id := strings.ToLower(in.GetId())
	if id == "" {
		id = fallback
	}
	if !IsUUID(id) {
		return command.CreateNode{}, refusal.Invalid("node.id", "%q is not a UUID", refusal.Clip(in.GetId()))
	}
	if in.GetDriver() == "" {
		return command.CreateNode{}, refusal.Invalid("node.driver", "say which hardware type manages the node").
			WithHelp("%s", driversHelp(v))
	}
	n := node.Node{ID: node.ID(id)}
	for _, f := range nodeFields {
		if err := f.set(r, &n, in); err != nil {
			return command.CreateNode{}, err
		}
	}
	if err := RequireAgent(v, n.Group, n.Driver); err != nil {
		return command.CreateNode{}, err
	}
	ports, err := r.newPorts(n.ID, in.GetPorts())
	return command.CreateNode{Node: node.Pack(&n), Ports: ports}, err
}

// NameOf is what a request calls the node that it holds.
func NameOf(n *farrierv1.Node) string {
	if n.GetId() != "" {
		return n.GetId()
	}
	return n.GetName()
}

// ChangeNode makes the command of an update. merged tells that it depends on n as it is.
func (r *Reader) ChangeNode(v *state.View, n *node.Node, req *farrierv1.UpdateNodeRequest) (body command.UpdateNode, merged bool, err error) {
	paths := req.GetMask().GetPaths()
	if len(paths) == 0 {
		return body, false, refusal.Invalid("mask", "name the fields to change")
	}
	next := n.Clone()
	for _, path := range paths {
		field, err := lookupField(path)
		if err != nil {
			return body, false, err
		}
		if key, ok := strings.CutPrefix(path, field.path+"."); ok {
			merged = true
			err = field.setKey(r, next, req.GetNode(), key)
		} else {
			merged = merged || field.path == "driver_info" // hidden values stand for what is stored
			err = field.set(r, next, req.GetNode())
		}
		if err != nil {
			return body, false, err
		}
		if !slices.Contains(body.Fields, field.path) {
			body.Fields = append(body.Fields, field.path)
		}
	}
	if next.Driver != n.Driver || next.Group != n.Group {
		if err := RequireAgent(v, next.Group, next.Driver); err != nil {
			return body, false, err
		}
	}
	body.Node, body.Version = *next, req.GetVersion()
	if merged && body.Version == 0 {
		body.Version = n.Version
	}
	return body, merged, nil
}
