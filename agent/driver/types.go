package driver

import (
	"slices"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/agent/work"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/step"
)

// Kind is one of the things that a hardware type can do, after Ironic's interfaces.
type Kind uint8

// The interface kinds.
const (
	_ Kind = iota
	Power
	Management
	Boot
	Deploy
	Inspect
	BIOS
	RAID
	Firmware
	Console
	Network
	Storage
	Rescue
	Vendor
	endOfKinds
)

var kindText = [...]string{ // read-only
	Power: "power", Management: "management", Boot: "boot", Deploy: "deploy", Inspect: "inspect", BIOS: "bios", RAID: "raid",
	Firmware: "firmware", Console: "console", Network: "network", Storage: "storage", Rescue: "rescue", Vendor: "vendor",
}

// String is Ironic's name of the kind, which also starts a step's full name.
func (k Kind) String() string {
	if k > 0 && k < endOfKinds {
		return kindText[k]
	}
	return "unknown"
}

// Arg is one argument of a step.
type Arg struct {
	Name, Description string
	Required          bool
}

// Step is what there is to know about a step.
type Step struct {
	Name      string
	Executor  step.Executor
	Class     step.Class
	Priority  int // in automated cleaning; 0: not run by itself
	Abortable bool
	Args      []Arg
}

// NeedsRamdisk tells whether the machine must run the ramdisk.
func (s Step) NeedsRamdisk() bool { return s.Executor == step.Ramdisk }

// Interface is one implementation of one kind.
type Interface struct {
	Kind  Kind
	Name  string // "redfish", "fake", "ramdisk", "pxe"
	Steps []Step
}

// Type is a hardware type.
type Type struct {
	Name       string
	Interfaces []Interface
	Factory    bmc.Factory
	Simulated  bool // there is no machine: the agent plays the ramdisk
}

// Redfish is the hardware type "redfish".
func Redfish(f bmc.Factory) Type {
	return Type{Name: "redfish", Factory: f, Interfaces: interfaces("redfish", "ipxe", "ramdisk")}
}

// Fake is the hardware type "fake-hardware": a BMC in memory and a machine that is not there.
func Fake(f bmc.Factory) Type {
	return Type{Name: "fake-hardware", Factory: f, Simulated: true, Interfaces: interfaces("fake", "fake", "fake")}
}

// Step finds a step by its interface and name.
func (t Type) Step(iface, name string) (Step, bool) {
	for _, i := range t.Interfaces {
		if i.Kind.String() != iface {
			continue
		}
		for _, s := range i.Steps {
			if s.Name == name {
				return s, true
			}
		}
	}
	return Step{}, false
}

// Types are the hardware types of an agent by name. They do not change once it runs.
type Types map[string]Type

// NewTypes joins types, in the order of their names.
func NewTypes(types ...Type) Types {
	all := make(Types, len(types))
	for _, t := range types {
		all[t.Name] = t
	}
	return all
}

// Names lists the hardware types, sorted.
func (ts Types) Names() []string {
	names := make([]string, 0, len(ts))
	for name := range ts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Check tells whether the node's hardware type offers the order's step, with the executor that the order names
// and every argument that the step cannot do without.
func (ts Types) Check(driver string, o work.Order) error {
	t, ok := ts[driver]
	if !ok {
		return fault.New(fault.Unsupported, o.Full(), "this agent has no hardware type %q", driver)
	}
	s, ok := t.Step(o.Interface, o.Name)
	switch {
	case !ok:
		return fault.New(fault.Unsupported, o.Full(), "hardware type %s offers no such step", driver)
	case s.Executor != o.Executor:
		return fault.New(fault.Unsupported, o.Full(), "it is run by %s, not by %s", s.Executor, o.Executor)
	}
	for _, a := range s.Args {
		if a.Required && o.Args[a.Name] == "" {
			return fault.New(fault.Invalid, o.Full(), "argument %s is missing: %s", a.Name, a.Description).
				WithDetail(&fault.FieldDetail{Field: a.Name})
		}
	}
	return nil
}
