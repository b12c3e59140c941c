package rpc

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// field is one property of a node that callers may set, named by its path in the Node message.
type field struct {
	path   string
	set    func(a *API, n *node.Node, in *farrierv1.Node) error
	setKey func(a *API, n *node.Node, in *farrierv1.Node, key string) error // of maps: one key
}

// nodeFields are all of them. Everything else of a node is found out or decided, and cannot be set.
var nodeFields = []field{ // read-only
	{path: "name", set: func(_ *API, n *node.Node, in *farrierv1.Node) error {
		n.Name = in.GetName()
		if n.Name == "" {
			return nil
		}
		return checkName("node.name", n.Name)
	}},
	{path: "driver", set: func(_ *API, n *node.Node, in *farrierv1.Node) error {
		n.Driver = in.GetDriver()
		return checkName("node.driver", n.Driver)
	}},
	{path: "group", set: func(_ *API, n *node.Node, in *farrierv1.Node) error {
		n.Group = in.GetGroup()
		if n.Group == "" {
			n.Group = defaultGroup
		}
		return checkName("node.group", n.Group)
	}},
	{path: "description", set: func(_ *API, n *node.Node, in *farrierv1.Node) error {
		n.Description = in.GetDescription()
		return checkText("node.description", n.Description, maxText)
	}},
	{path: "resource_class", set: func(_ *API, n *node.Node, in *farrierv1.Node) error {
		n.ResourceClass = in.GetResourceClass()
		return checkText("node.resource_class", n.ResourceClass, maxClass)
	}},
	{path: "traits", set: setTraits},
	{path: "properties",
		set: func(_ *API, n *node.Node, in *farrierv1.Node) error {
			n.Properties = maps.Clone(in.GetProperties())
			return checkMap("node.properties", n.Properties, maxMap)
		},
		setKey: func(_ *API, n *node.Node, in *farrierv1.Node, key string) error {
			value, has := in.GetProperties()[key]
			n.Properties = mergeKey(n.Properties, key, value, has)
			return checkMap("node.properties", n.Properties, maxMap)
		}},
	{path: "extra",
		set: func(_ *API, n *node.Node, in *farrierv1.Node) error {
			n.Extra = maps.Clone(in.GetExtra())
			return checkMap("node.extra", n.Extra, maxMap)
		},
		setKey: func(_ *API, n *node.Node, in *farrierv1.Node, key string) error {
			value, has := in.GetExtra()[key]
			n.Extra = mergeKey(n.Extra, key, value, has)
			return checkMap("node.extra", n.Extra, maxMap)
		}},
	{path: "driver_info",
		set: func(a *API, n *node.Node, in *farrierv1.Node) (err error) {
			n.DriverInfo, n.Secrets, err = splitInfo(a.Keyring, n.ID, in.GetDriverInfo(), n.Secrets)
			return err
		},
		setKey: setDriverInfoKey},
	{path: "automated_clean", set: func(_ *API, n *node.Node, in *farrierv1.Node) error {
		n.AutomatedClean = in.AutomatedClean
		return nil
	}},
	{path: "protected", set: func(_ *API, n *node.Node, in *farrierv1.Node) error {
		n.Protected = in.GetProtected()
		return nil
	}},
	{path: "protected_reason", set: func(_ *API, n *node.Node, in *farrierv1.Node) error {
		n.ProtectedReason = in.GetProtectedReason()
		return checkText("node.protected_reason", n.ProtectedReason, maxText)
	}},
	{path: "retired", set: func(_ *API, n *node.Node, in *farrierv1.Node) error {
		n.Retired = in.GetRetired()
		return nil
	}},
	{path: "owner", set: func(_ *API, n *node.Node, in *farrierv1.Node) error {
		n.OwnerID = in.GetOwner()
		return checkText("node.owner", n.OwnerID, maxName)
	}},
	{path: "lessee", set: func(_ *API, n *node.Node, in *farrierv1.Node) error {
		n.LesseeID = in.GetLessee()
		return checkText("node.lessee", n.LesseeID, maxName)
	}},
	{path: "boot_mode", set: func(_ *API, n *node.Node, in *farrierv1.Node) error {
		n.BootMode = in.GetBootMode()
		if n.BootMode != "" && n.BootMode != "bios" && n.BootMode != "uefi" {
			return refusal.Invalid("node.boot_mode", "%q is not bios or uefi", refusal.Clip(n.BootMode))
		}
		return nil
	}},
}

func setTraits(_ *API, n *node.Node, in *farrierv1.Node) error {
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

func setDriverInfoKey(a *API, n *node.Node, in *farrierv1.Node, key string) (err error) {
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
	n.DriverInfo, n.Secrets, err = splitInfo(a.Keyring, n.ID, info, n.Secrets)
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

// knownDrivers are the hardware types that this release ships, and those that agents brought.
func knownDrivers(v *state.View) []string {
	names := []string{"fake-hardware", "redfish"}
	v.Agents(func(a *state.Agent) bool {
		names = append(names, a.Drivers...)
		return true
	})
	slices.Sort(names)
	return slices.Compact(names)
}

func driversHelp(v *state.View) string {
	return "the hardware types are " + strings.Join(knownDrivers(v), ", ")
}

// requireAgent is an error unless a live agent of the group has the hardware type.
func requireAgent(v *state.View, group, driver string) error {
	if !slices.Contains(knownDrivers(v), driver) {
		return refusal.Invalid("node.driver", "there is no hardware type %q", refusal.Clip(driver)).WithHelp("%s", driversHelp(v))
	}
	if len(v.Ring(group, driver).Members) > 0 {
		return nil
	}
	return fault.New(fault.NoAgent, "find agent", "group %q has no live agent with hardware type %q", group, driver).
		WithHelp("%s", agentsHelp(v, group))
}

func agentsHelp(v *state.View, group string) string {
	var there []string
	v.Agents(func(a *state.Agent) bool {
		if a.Session != "" && len(there) < 8 {
			there = append(there, fmt.Sprintf("%s (group %s: %s)", a.Name, a.Group, strings.Join(a.Drivers, " ")))
		}
		return true
	})
	if len(there) == 0 {
		return fmt.Sprintf("no agent is connected: start one of group %q, see `farrier agent list`", group)
	}
	return fmt.Sprintf("start an agent of group %q, or name a group that has one; live agents: %s", group, strings.Join(there, ", "))
}
