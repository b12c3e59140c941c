package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/farrier-project/farrier/pkg/hint"
)

// flagValues are the values that a flag may have, where they are a fixed set. What is legal is the coordinators' to say: these
// are only offered while a line is typed.
var flagValues = map[string][]string{ // read-only
	"state": {
		"enroll", "verifying", "manageable", "available", "deploying", "wait call-back", "deploy hold", "deploy failed", "active",
		"deleting", "error", "cleaning", "clean wait", "clean hold", "clean failed", "inspecting", "inspect wait", "inspect failed",
		"adopting", "adopt failed", "rescuing", "rescue wait", "rescue", "rescue failed", "unrescuing", "unrescue failed",
		"servicing", "service wait", "service hold", "service failed",
	},
	"type": {
		"node.created", "node.updated", "node.deleted", "node.provision_state", "node.power_state", "node.maintenance", "node.owner",
		"node.handover", "node.wipe", "port.created", "port.updated", "port.deleted", "flow.opened", "flow.admitted", "flow.step",
		"flow.abort", "flow.late", "flow.edge", "flow.closed", "lock.granted", "lock.released", "lock.broken", "agent.session",
		"agent.drain", "agent.removed", "ring.epoch", "client.ended", "cluster.settings", "cluster.level", "cluster.generation",
		"cluster.member", "cluster.join_token", "cluster.certificate", "alarm",
	},
	"sort":            {"id", "name", "provision_state", "updated_at", "id desc", "name desc", "provision_state desc", "updated_at desc"},
	"format":          {"raw", "raw.gz", "raw.zst"},
	"automated-clean": {"true", "false"},
	"step":            {"deploy.erase_devices", "deploy.erase_devices_metadata"},
	"root-device":     hintKeys(),
}

// fileFlags take a file, or a value that may name one: the shell offers its own.
var fileFlags = []string{"config", "user-data", "network-data", "driver-info"} // read-only

func hintKeys() (keys []string) {
	for _, h := range hint.All() {
		keys = append(keys, string(h)+"=")
	}
	return keys
}

// oneOf offers values, in their order; of a list with commas those that may come next.
func oneOf(values []string, list bool) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, typed string) (out []cobra.Completion, directive cobra.ShellCompDirective) {
		before := ""
		if list {
			before = typed[:strings.LastIndex(typed, ",")+1]
		}
		given := strings.Split(before, ",")
		directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
		for _, value := range values {
			if strings.HasPrefix(before+value, typed) && !slices.Contains(given, value) {
				out = append(out, before+value)
			}
			if strings.HasSuffix(value, "=") {
				directive |= cobra.ShellCompDirectiveNoSpace
			}
		}
		return out, directive
	}
}
