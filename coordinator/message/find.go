package message

import (
	"fmt"
	"slices"
	"strings"

	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// minPrefix is how much of a UUID names a node, in characters, if it is the only one that begins so.
const minPrefix = 4

// FindNode finds a node by id, name or the MAC address of a port, or by the beginning of its id.
func FindNode(v *state.View, idOrName string) (*node.Node, error) {
	if idOrName == "" {
		return nil, refusal.Invalid("node", "name a node by its UUID or its name")
	}
	n, ok := v.ResolveNode(idOrName)
	if !ok {
		if n, ok = byMAC(v, idOrName); ok {
			return n, nil
		}
		if n, err := byPrefix(v, idOrName); n != nil || err != nil {
			return n, err
		}
		return nil, fault.New(fault.NotFound, "find node", "there is no node %q", refusal.Clip(idOrName)).
			WithHelp("`farrier node list` shows the nodes")
	}
	return n, nil
}

func byMAC(v *state.View, text string) (*node.Node, bool) {
	mac, err := normalMAC("node", text)
	if err != nil {
		return nil, false
	}
	p, ok := v.PortByMAC(mac)
	if !ok {
		return nil, false
	}
	return v.Node(p.Node)
}

// byPrefix is nil if no id begins so.
func byPrefix(v *state.View, text string) (*node.Node, error) {
	text = strings.ToLower(text)
	if len(text) < minPrefix || strings.Trim(text, "0123456789abcdef-") != "" {
		return nil, nil
	}
	var found []*node.Node
	v.Nodes(node.ID(text), func(n *node.Node) bool {
		if !strings.HasPrefix(string(n.ID), text) {
			return false
		}
		found = append(found, n)
		return len(found) < 2
	})
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return found[0], nil
	}
	return nil, fault.New(fault.Ambiguous, "find node", "several ids begin with %q", refusal.Clip(text)).WithHelp("give more of the id, or the name")
}

// FindPort finds a port by id or MAC address.
func FindPort(v *state.View, idOrMAC string) (*node.Port, error) {
	if p, ok := v.Port(strings.ToLower(idOrMAC)); ok {
		return p, nil
	}
	if mac, err := normalMAC("port", idOrMAC); err == nil {
		if p, ok := v.PortByMAC(mac); ok {
			return p, nil
		}
	}
	return nil, fault.New(fault.NotFound, "find port", "there is no port %q", refusal.Clip(idOrMAC)).
		WithHelp("name a port by its UUID or its MAC address")
}

// Label is how a text calls a node: by its name, if it has one.
func Label(n *node.Node) string {
	if n.Name != "" {
		return n.Name
	}
	return string(n.ID)
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

// RequireAgent is an error unless a live agent of the group has the hardware type.
func RequireAgent(v *state.View, group, driver string) error {
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
