package flow

import (
	"maps"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/step"
)

// Spec is what a flow's steps depend on.
type Spec struct {
	Kind   Kind
	Target string      // of Power: "power on", "power off", "rebooting", "soft power off", "soft rebooting"
	Erase  string      // of Clean: auto, discard, overwrite, metadata
	Manual []CleanStep // of a manual Clean, in order; nil of an automated one

	ImageURL, ImageSHA, ImageFormat string            // of Deploy and Rebuild
	Hints                           map[string]string // root device hints
	Drive                           bool              // there is data that the machine must find on its config drive
}

// CleanStep is a step that a user asks for.
type CleanStep struct {
	Interface, Name string
	Args            map[string]string
}

// Facts that later steps, and state, take from a step.
const (
	FactPower  = "power_state" // "power on" or "power off": of every power step and of verify
	FactDisk   = "disk_id"     // of select_disk: the stable id of the disk
	FactDigest = "digest"      // of write_image: hex SHA-256 of the image file, verified by reading back
	FactMethod = "method"      // of an erase: discard, overwrite, metadata
	FactDisks  = "disks"       // of an erase: comma list of stable ids
	FactSample = "sampled"     // of an erase: verified sample reads

	FactWeakBoot = "weak_boot"   // of boot.prepare: "true" when the boot secret crosses the segment in clear
	FactUUID     = "system_uuid" // of verify and boot.prepare: the machine's, as its BMC says
	FactSerial   = "serial"      // likewise
)

// Names that state looks for.
const (
	StepPowerOn      = "power.power_on"
	StepPowerOff     = "power.power_off"
	StepPrepare      = "boot.prepare"
	StepWait         = "boot.wait_ramdisk"
	StepTeardown     = "boot.teardown"
	StepVerify       = "management.verify"
	StepInventory    = "inspect.inventory"
	StepEraseMeta    = "deploy.erase_devices_metadata"
	StepErase        = "deploy.erase_devices"
	StepSelectDisk   = "deploy.select_disk"
	StepWriteImage   = "deploy.write_image"
	StepConfigDrive  = "deploy.write_config_drive"
	StepTearDownBoot = "deploy.tear_down_agent"
)

// Boots tells whether flows of the kind boot the ramdisk: they have two phases.
func (k Kind) Boots() bool { return k == Inspect || k == Clean || k == Deploy || k == Rebuild }

// Phase1 is what a flow starts with. It is an error only for a power target or a clean step that nobody knows.
func Phase1(s Spec) ([]Step, error) {
	switch s.Kind {
	case Verify:
		return []Step{bmc("management", "verify", step.Read, nil)}, nil
	case Undeploy:
		return []Step{powerOff(), teardown()}, nil
	case Power:
		return powerSteps(s.Target)
	case Clean:
		if _, err := cleanSteps(s); err != nil {
			return nil, err
		}
		return bootSteps(), nil
	case Inspect, Deploy, Rebuild:
		return bootSteps(), nil
	default:
		return nil, fault.New(fault.Invalid, "plan flow", "there are no steps for %s", s.Kind)
	}
}

// Phase2 is what follows the ramdisk's first contact; empty for kinds that boot none.
func Phase2(s Spec) ([]Step, error) {
	switch s.Kind {
	case Inspect:
		return []Step{ramdisk("inspect", "inventory", step.Read, nil), powerOff(), teardown()}, nil
	case Clean:
		steps, err := cleanSteps(s)
		return append(steps, powerOff(), teardown()), err
	case Deploy, Rebuild:
		return deploySteps(s), nil
	default:
		return nil, nil
	}
}

// Cleanup is what is tried after a failure, so that the machine is not left in the ramdisk.
func Cleanup() []Step {
	off, down := powerOff(), teardown()
	off.Cleanup, down.Cleanup = true, true
	return []Step{off, down}
}

// bootSteps bring the ramdisk up: power off, read back, power on, so that no reset is ever needed.
func bootSteps() []Step {
	return []Step{
		powerOff(),
		agent("boot", "prepare"),
		bootDevice("pxe", "false"),
		powerOn(),
		{Interface: "boot", Name: "wait_ramdisk", Class: step.Read, Executor: step.Wait, Abortable: true},
	}
}

func deploySteps(s Spec) []Step {
	image := map[string]string{"url": s.ImageURL, "sha256": s.ImageSHA, "format": s.ImageFormat}
	disk := maps.Clone(image) // its size tells which disks are large enough
	for k, v := range s.Hints {
		disk["hint."+k] = v
	}
	drive := ramdisk("deploy", "write_config_drive", step.Converging, nil)
	if s.Drive { // so that an image without a place for the drive is refused before it is written
		image["config_drive"] = "required"
		drive.Args = map[string]string{"config_drive": "required"}
	}
	drive.SecretArgs = []string{"user_data", "network_data"}
	return []Step{
		ramdisk("deploy", "select_disk", step.Read, disk),
		ramdisk("deploy", "write_image", step.Converging, image),
		drive,
		bootDevice("disk", "true"),
		ramdisk("deploy", "tear_down_agent", step.Set, nil),
		powerOff(),
		teardown(),
		powerOn(),
	}
}

func cleanSteps(s Spec) ([]Step, error) {
	meta := ramdisk("deploy", "erase_devices_metadata", step.Converging, nil)
	method := s.Erase
	if method == "metadata" { // that an automated clean erases no more is no method of the step
		method = "auto"
	}
	erase := ramdisk("deploy", "erase_devices", step.Converging, map[string]string{"method": method})
	if s.Manual == nil {
		if s.Erase == "metadata" {
			return []Step{meta}, nil
		}
		return []Step{meta, erase}, nil
	}
	if len(s.Manual) == 0 || len(s.Manual) > 32 {
		return nil, fault.New(fault.Invalid, "plan clean", "a manual clean takes 1 to 32 steps, not %d", len(s.Manual)).
			WithDetail(&fault.FieldDetail{Field: "clean_steps"})
	}
	var steps []Step
	for _, c := range s.Manual {
		st := meta
		switch name := c.Interface + "." + c.Name; name {
		case StepEraseMeta:
		case StepErase:
			st = erase
		default:
			return nil, fault.New(fault.Unsupported, "plan clean", "no clean step is called %q", name).
				WithHelp("the clean steps are %s and %s", StepEraseMeta, StepErase).
				WithDetail(&fault.FieldDetail{Field: "clean_steps"})
		}
		if len(c.Args) > 0 {
			args := make(map[string]string, len(c.Args)+1)
			maps.Copy(args, st.Args)
			maps.Copy(args, c.Args)
			st.Args = args
		}
		steps = append(steps, st)
	}
	return steps, nil
}

func powerSteps(target string) ([]Step, error) {
	switch target {
	case "power on":
		return []Step{powerOn()}, nil
	case "power off":
		return []Step{powerOff()}, nil
	case "rebooting":
		return []Step{powerOff(), powerOn()}, nil
	case "soft power off":
		return []Step{softPowerOff()}, nil
	case "soft rebooting":
		return []Step{softPowerOff(), powerOn()}, nil // two sets, as a reboot: a resumed one shuts nothing down twice
	default:
		return nil, fault.New(fault.Invalid, "plan power", "%q is not a power target", target).
			WithHelp(`use "power on", "power off", "rebooting", "soft power off" or "soft rebooting"`).
			WithDetail(&fault.FieldDetail{Field: "target"})
	}
}

func powerOn() Step      { return bmc("power", "power_on", step.Set, nil) }
func powerOff() Step     { return bmc("power", "power_off", step.Set, nil) }
func softPowerOff() Step { return bmc("power", "soft_power_off", step.Set, nil) }
func teardown() Step     { return agent("boot", "teardown") }

func bootDevice(device, persistent string) Step {
	return bmc("management", "set_boot_device", step.Set, map[string]string{"device": device, "persistent": persistent})
}

func bmc(iface, name string, class step.Class, args map[string]string) Step {
	return Step{Interface: iface, Name: name, Class: class, Executor: step.BMC, Args: args}
}

func agent(iface, name string) Step {
	return Step{Interface: iface, Name: name, Class: step.Set, Executor: step.Agent}
}

func ramdisk(iface, name string, class step.Class, args map[string]string) Step {
	return Step{Interface: iface, Name: name, Class: class, Executor: step.Ramdisk, Abortable: true, Args: args}
}
