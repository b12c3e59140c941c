package redfish

import (
	"context"
	"net/http"
	"strings"

	"github.com/stmcginnis/gofish"
	"github.com/stmcginnis/gofish/schemas"

	"github.com/farrier-project/farrier/agent/bmc"
)

const (
	maxNICs  = 256
	maxDisks = 1024
)

func identity(sys *schemas.ComputerSystem) bmc.Identity {
	return bmc.Identity{
		UUID: strings.ToLower(strings.TrimSpace(sys.UUID)), Serial: strings.TrimSpace(sys.SerialNumber),
		Manufacturer: strings.TrimSpace(sys.Manufacturer), Model: strings.TrimSpace(sys.Model),
	}
}

// Identity implements bmc.Describer.
func (c *Client) Identity(ctx context.Context) (id bmc.Identity, err error) {
	err = c.call(ctx, "read identity", false, func(_ context.Context, api *gofish.APIClient) error {
		sys, err := c.fullSystem(api)
		if err == nil {
			id = identity(sys)
		}
		return err
	})
	return id, err
}

// Inventory implements bmc.Describer. What a service does not list is left out; a failure to read what it does
// list is an error.
func (c *Client) Inventory(ctx context.Context) (inv bmc.Inventory, err error) {
	err = c.call(ctx, "read inventory", false, func(_ context.Context, api *gofish.APIClient) error {
		sys, err := c.fullSystem(api)
		if err != nil {
			return err
		}
		inv = bmc.Inventory{Identity: identity(sys), BIOSVersion: sys.BiosVersion, CPUModel: sys.ProcessorSummary.Model}
		inv.CPUs = int(gofish.Deref(sys.ProcessorSummary.Count))
		inv.MemoryBytes = uint64(gofish.Deref(sys.MemorySummary.TotalSystemMemoryGiB)*1024) << 20
		if inv.NICs, err = nics(sys); err != nil {
			return err
		}
		inv.Disks, err = disks(sys)
		return err
	})
	return inv, err
}

func nics(sys *schemas.ComputerSystem) ([]bmc.NIC, error) {
	list, err := sys.EthernetInterfaces()
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []bmc.NIC
	for _, n := range list[:min(len(list), maxNICs)] {
		mac := n.PermanentMACAddress
		if mac == "" {
			mac = n.MACAddress
		}
		out = append(out, bmc.NIC{Name: n.ID, MAC: strings.ToLower(mac), Link: n.LinkStatus == schemas.LinkUpLinkStatus})
	}
	return out, nil
}

func disks(sys *schemas.ComputerSystem) ([]bmc.Disk, error) {
	stores, err := sys.Storage()
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []bmc.Disk
	for _, st := range stores {
		drives, err := st.Drives()
		if missing(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, d := range drives {
			if len(out) == maxDisks {
				return out, nil
			}
			out = append(out, bmc.Disk{
				Name: d.Name, Model: strings.TrimSpace(d.Model), Serial: strings.TrimSpace(d.SerialNumber),
				Bytes: uint64(max(gofish.Deref(d.CapacityBytes), 0)),
			})
		}
	}
	return out, nil
}

// missing tells that a service does not have a part of the inventory.
func missing(err error) bool {
	s := statusOf(err)
	return s == http.StatusNotFound || s == http.StatusNotImplemented || s == http.StatusMethodNotAllowed
}
