package driver

import (
	"github.com/farrier-project/farrier/pkg/hint"
	"github.com/farrier-project/farrier/pkg/step"
)

// interfaces is what both hardware types offer; they differ in who carries it out.
func interfaces(bmcName, bootName, ramdiskName string) []Interface {
	return []Interface{
		{Power, bmcName, powerSteps()},
		{Management, bmcName, managementSteps()},
		{Boot, bootName, bootSteps()},
		{Inspect, ramdiskName, inspectSteps()},
		{Deploy, ramdiskName, deploySteps()},
	}
}

func powerSteps() []Step {
	soft := Arg{Name: "soft_timeout", Description: "how long the operating system may take, as a duration; default 10m"}
	return []Step{
		{Name: "power_on", Executor: step.BMC, Class: step.Set},
		{Name: "power_off", Executor: step.BMC, Class: step.Set},
		{Name: "soft_power_off", Executor: step.BMC, Class: step.Set, Args: []Arg{soft}},
	}
}

func managementSteps() []Step {
	return []Step{
		{Name: "set_boot_device", Executor: step.BMC, Class: step.Set, Args: []Arg{
			{Name: "device", Description: "pxe, disk, cdrom, bios, uefihttp or none", Required: true},
			{Name: "persistent", Description: "true: until changed; false: for the next boot only (default)"},
			{Name: "boot_mode", Description: "bios or uefi; default as it is"},
		}},
		{Name: "verify", Executor: step.BMC, Class: step.Read},
	}
}

func bootSteps() []Step {
	return []Step{
		{Name: "prepare", Executor: step.Agent, Class: step.Set},
		{Name: "wait_ramdisk", Executor: step.Wait, Class: step.Read, Abortable: true},
		{Name: "teardown", Executor: step.Agent, Class: step.Set},
	}
}

func inspectSteps() []Step {
	return []Step{{Name: "inventory", Executor: step.Ramdisk, Class: step.Read, Abortable: true}}
}

func deploySteps() []Step {
	skips := []Arg{
		{Name: "skip_read_only", Description: "true: leave read-only disks as they are, named in the facts; default: they fail the step"},
		{Name: "skip_undriven", Description: "true: accept storage controllers without a driver, named in the facts; default: they fail the step"},
	}
	disk := Arg{Name: "disk_id", Description: "stable id of the disk, as deploy.select_disk found it", Required: true}
	image := func(required bool) []Arg {
		return []Arg{
			{Name: "url", Description: "where the agent fetches the image", Required: required},
			{Name: "sha256", Description: "hex digest of the file", Required: required},
			{Name: "format", Description: "raw, raw.gz or raw.zst", Required: required},
		}
	}
	drive := Arg{Name: "config_drive", Description: "required: fail when the image has no place for a config drive; default: do without one then"}
	return []Step{
		{Name: "erase_devices_metadata", Executor: step.Ramdisk, Class: step.Converging, Priority: 99, Abortable: true, Args: skips},
		{Name: "erase_devices", Executor: step.Ramdisk, Class: step.Converging, Priority: 10, Abortable: true, Args: append([]Arg{
			{Name: "method", Description: "auto, discard or overwrite; default auto"},
		}, skips...)},
		{Name: "select_disk", Executor: step.Ramdisk, Class: step.Read, Args: append([]Arg{
			{Name: "min_bytes", Description: "smallest size of the disk; that of the image in any case"},
			{Name: "hint.*", Description: "root device hints: " + hint.List()},
		}, image(false)...)},
		{Name: "write_image", Executor: step.Ramdisk, Class: step.Converging, Args: append(image(true), disk, drive)},
		{Name: "write_config_drive", Executor: step.Ramdisk, Class: step.Converging, Args: []Arg{disk, drive}},
		{Name: "tear_down_agent", Executor: step.Ramdisk, Class: step.Set},
	}
}
