package redfish

import (
	"fmt"

	"github.com/farrier-project/farrier/test/lab"
)

// system is the ComputerSystem resource as it is now.
func (b *BMC) system() object {
	m := b.cfg.Machine
	board := m.Board()
	power := "Off"
	if m.Powered() {
		power = "On"
	}
	b.mu.Lock()
	if b.moving != "" {
		power = b.moving
	}
	b.mu.Unlock()
	boot := m.Boot()
	enabled := "Disabled"
	if boot.Target != lab.BootNone && boot.Target != "" {
		if enabled = "Continuous"; boot.Once || b.fault().OnceStays {
			enabled = "Once"
		}
	} else {
		boot.Target = lab.BootNone
	}
	if boot.Mode == "" {
		boot.Mode = "Legacy"
	}
	return object{
		"@odata.id": systemPath, "@odata.type": "#ComputerSystem.v1_20_0.ComputerSystem", "Id": "1", "Name": "System",
		"SystemType": "Physical", "UUID": board.UUID, "SerialNumber": board.Serial, "Manufacturer": board.Manufacturer,
		"Model": board.Model, "PowerState": power, "BiosVersion": "lab 1",
		"ProcessorSummary": object{"Count": board.CPUs, "Model": "simulated"},
		"MemorySummary":    object{"TotalSystemMemoryGiB": float64(board.MemoryBytes) / (1 << 30)},
		"Boot": object{
			"BootSourceOverrideTarget": boot.Target, "BootSourceOverrideEnabled": enabled, "BootSourceOverrideMode": boot.Mode,
			"BootSourceOverrideTarget@Redfish.AllowableValues": []string{lab.BootNone, lab.BootPXE, lab.BootDisk, lab.BootHTTP},
		},
		"EthernetInterfaces": link(systemPath + "/EthernetInterfaces"),
		"Storage":            link(systemPath + "/Storage"),
		"Links":              object{"ManagedBy": []object{link(root + "/Managers/1")}, "Chassis": []object{link(root + "/Chassis/1")}},
		"Actions": object{"#ComputerSystem.Reset": object{
			"target": resetPath, "ResetType@Redfish.AllowableValues": resetTypes,
		}},
	}
}

// hardware registers the parts of the system, which do not change.
func (b *BMC) hardware(get func(path string, body func() object)) {
	board := b.cfg.Machine.Board()
	nics := systemPath + "/EthernetInterfaces"
	var members []string
	for i, mac := range board.MACs {
		path := fmt.Sprintf("%s/%d", nics, i)
		members = append(members, path)
		get(path, func() object {
			return object{"@odata.id": path, "Id": fmt.Sprintf("nic%d", i), "Name": "NIC", "MACAddress": mac, "PermanentMACAddress": mac, "LinkStatus": "LinkUp"}
		})
	}
	get(nics, func() object { return collection(nics, members...) })
	store := systemPath + "/Storage"
	get(store, func() object { return collection(store, store+"/1") })
	var drives []object
	for i, d := range board.Disks {
		path := fmt.Sprintf("%s/1/Drives/%d", store, i)
		drives = append(drives, link(path))
		get(path, func() object {
			return object{"@odata.id": path, "Id": fmt.Sprint(i), "Name": d.Name, "Model": d.Model, "SerialNumber": d.Serial, "CapacityBytes": d.Bytes}
		})
	}
	get(store+"/1", func() object {
		return object{"@odata.id": store + "/1", "Id": "1", "Name": "Storage", "Drives": drives}
	})
}
