// Package fake is the hardware type "fake-hardware": a BMC that is a record in the agent's memory. It keeps state
// per node, so a second client of the same node sees what the first did, and passes the same suite as redfish
// (agent/bmc/bmctest). Trials and benchmarks use it; what runs on it is simulated hardware.
//
// driver_info, all optional:
//
//	fake_delay        pause before each call's answer: "50ms"; at most 10m
//	fake_power_delay  pause between a power request and the new state, "2s"
//	fake_fault        "unreachable", "password", "hang" (until the deadline), "stuck" (accepts power changes and
//	                  never carries them out), "no-boot" (boot device unsupported), "no-reset"
//	fake_fail_first   how many changing calls fail with fault.Unavailable before they work
//	fake_uuid, fake_serial, fake_manufacturer, fake_model
package fake
