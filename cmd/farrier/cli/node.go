package cli

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/cmd/farrier/view"
	"github.com/farrier-project/farrier/pkg/fault"
)

// maxAttachment is the bound of user data and network data, in bytes.
const maxAttachment = 64 << 10

func (a *app) node() *cobra.Command {
	return noun("node", "Machines under management",
		a.nodeList(), a.nodeShow(), a.nodeCreate(), a.nodeSet(), a.nodeDelete(), a.nodeWatch(), a.nodeInventory(), a.nodeValidate(),
		a.nodeDeploy("deploy", "active", "Put an image on a machine that is available"),
		a.nodeDeploy("rebuild", "rebuild", "Write the image again, or another one"),
		a.nodeVerb("manage", "manage", "Prove the BMC credentials, or take a machine back from available or a failure"),
		a.nodeVerb("provide", "provide", "Clean a manageable machine and make it available"),
		a.nodeVerb("inspect", "inspect", "Boot the ramdisk and read the hardware"),
		a.nodeClean(),
		a.nodeVerb("undeploy", "deleted", "End the tenancy: power off, wipe, make available"),
		a.nodeVerb("abort", "abort", "Stop the work in hand"),
		a.nodePower(), a.nodeMaintenance(), a.nodeTrait(), a.nodeWaive())
}

func (a *app) nodeList() *cobra.Command {
	var f farrierv1.NodeFilter
	var sortBy string
	var maintenance, stale bool
	var limit int
	c := &cobra.Command{Use: "list", Short: "List machines", Args: exactly(0)}
	c.Flags().StringSliceVar(&f.ProvisionState, "state", nil, "provision states, such as available,\"clean failed\"")
	c.Flags().StringVar(&f.Driver, "driver", "", "hardware type")
	c.Flags().StringVar(&f.Group, "group", "", "group")
	c.Flags().StringVar(&f.Agent, "agent", "", "owned by this agent")
	c.Flags().StringVar(&f.ResourceClass, "resource-class", "", "resource class")
	c.Flags().StringVar(&f.NameContains, "name", "", "part of the name")
	c.Flags().BoolVar(&maintenance, "maintenance", false, "only machines in maintenance")
	c.Flags().BoolVar(&stale, "stale", false, "allow an answer that may be old, from a coordinator without quorum too")
	c.Flags().StringVar(&sortBy, "sort", "name", "id, name, provision_state or updated_at; \" desc\" may follow")
	c.Flags().IntVar(&limit, "limit", 0, "at most this many")
	pick := choose(c, (*farrierv1.Node)(nil), "name,provision_state,driver_info.redfish_address")
	c.RunE = a.run(func(s *session, _ []string) error {
		fields, err := pick()
		if err != nil {
			return err
		}
		if limit < 0 {
			return fault.New(fault.Invalid, "--limit", "%d is below zero", limit).WithHelp("0, or no --limit, lists all")
		}
		if c.Flags().Changed("maintenance") {
			f.Maintenance = &maintenance
		}
		all := &farrierv1.ListNodesResponse{}
		for token := ""; ; {
			res, err := s.Nodes.ListNodes(s.ctx, &farrierv1.ListNodesRequest{PageSize: 500, PageToken: token, Filter: &f, OrderBy: sortBy, Mask: maskOf(fields), Stale: stale})
			if err != nil {
				return err
			}
			all.Nodes, all.Index, all.Total = append(all.Nodes, res.GetNodes()...), res.GetIndex(), res.GetTotal()
			if token = res.GetNextPageToken(); token == "" || limit > 0 && len(all.Nodes) >= limit {
				break
			}
		}
		if limit > 0 && len(all.Nodes) > limit {
			all.Nodes = all.Nodes[:limit]
		}
		return s.things(fields, all, "nodes", func() {
			var rows [][]string
			for _, n := range all.GetNodes() {
				rows = append(rows, []string{n.GetName(), n.GetProvisionState(), n.GetPowerState(), n.GetGroup(), n.GetAgent(), flags(n), current(n), n.GetId()})
			}
			s.Rows([]string{"NAME", "STATE", "POWER", "GROUP", "AGENT", "FLAGS", "STEP", "ID"}, rows)
		})
	})
	return c
}

// flags are the things about a node that an operator should not overlook.
func flags(n *farrierv1.Node) string {
	var out []string
	if n.GetMaintenance() {
		out = append(out, "maintenance")
	}
	if n.GetFault() != "" {
		out = append(out, n.GetFault())
	}
	if n.GetProtected() {
		out = append(out, "protected")
	}
	if n.GetRetired() {
		out = append(out, "retired")
	}
	if n.GetAgent() == "" {
		out = append(out, "no agent")
	}
	return strings.Join(out, ",")
}

func current(n *farrierv1.Node) string {
	st := n.GetFlow().GetWorking()
	if st == nil {
		return ""
	}
	text := st.GetInterface() + "." + st.GetName()
	if p := st.GetProgress(); p.GetTotal() > 0 {
		text += fmt.Sprintf(" %d%%", 100*min(p.GetDone(), p.GetTotal())/p.GetTotal())
	}
	if n.GetFlow().GetQueued() {
		text += " (queued)"
	}
	return text
}

func (a *app) nodeShow() *cobra.Command {
	c := &cobra.Command{Use: "show NODE", Short: "Show one machine", Args: exactly(1)}
	stale := c.Flags().Bool("stale", false, "allow an answer that may be old")
	pick := choose(c, (*farrierv1.Node)(nil), "power_state,traits,instance.image.url")
	c.RunE = a.run(func(s *session, args []string) error {
		fields, err := pick()
		if err != nil {
			return err
		}
		res, err := s.Nodes.GetNode(s.ctx, &farrierv1.GetNodeRequest{Node: args[0], Mask: maskOf(fields), Stale: *stale})
		if err != nil {
			return err
		}
		return s.thing(fields, res.GetNode(), func() { s.node(res.GetNode()) })
	})
	return c
}

func (s *session) node(n *farrierv1.Node) {
	s.Pairs(nodePairs(n))
	if f := n.GetFlow(); f.GetId() != 0 {
		fmt.Fprintf(s.Out, "\nflow %d: %s, %s%s\n", f.GetId(), f.GetKind(), s.State(f.GetState()), colon(f.GetError()))
		var rows [][]string
		for _, st := range f.GetSteps() {
			took := ""
			if st.GetEndedAt() != nil && st.GetStartedAt() != nil {
				took = fmt.Sprintf("%.1fs", st.GetEndedAt().AsTime().Sub(st.GetStartedAt().AsTime()).Seconds())
			}
			rows = append(rows, []string{st.GetInterface() + "." + st.GetName(), st.GetState(), st.GetClass(), st.GetExecutor(), fmt.Sprint(st.GetAttempt()), took, st.GetError() + view.Bar(st.GetProgress(), 80)})
		}
		s.Rows([]string{"STEP", "STATE", "CLASS", "WHERE", "TRY", "TOOK", ""}, rows)
	}
}

// nodePairs are all fields of a node but its flow; those without a value are left out.
func nodePairs(n *farrierv1.Node) [][2]string {
	lock := ""
	if l := n.GetLock(); l.GetToken() != 0 {
		lock = fmt.Sprintf("%s: %s, since %s, token %s, %d queued", l.GetHolder(), l.GetPurpose(), clock(l.GetSince()), view.TokenText(l.GetToken()), l.GetQueued())
	}
	wipe := ""
	if w := n.GetWipe(); w.GetMethod() != "" {
		wipe = strings.Join(strings.Fields(fmt.Sprintf("%s at %s %s %s %s", w.GetMethod(), clock(w.GetAt()), strings.Join(w.GetDisks(), ","), w.GetWho(), w.GetReason())), " ")
		if w.GetSampled() > 0 {
			wipe += fmt.Sprintf(", %d samples read back", w.GetSampled())
		}
	}
	var macs []string
	for _, p := range n.GetPorts() {
		macs = append(macs, strings.TrimSpace(p.GetAddress()+" "+p.GetIp()))
	}
	automated := ""
	if n.AutomatedClean != nil {
		automated = fmt.Sprint(n.GetAutomatedClean())
	}
	in := n.GetInstance()
	return [][2]string{
		{"id", n.GetId()}, {"name", n.GetName()}, {"description", n.GetDescription()}, {"driver", n.GetDriver()}, {"group", n.GetGroup()},
		{"agent", n.GetAgent()}, {"handover from", n.GetPreviousAgent()}, {"state", n.GetProvisionState()}, {"target", n.GetTargetProvisionState()},
		{"since", clock(n.GetProvisionUpdatedAt())}, {"power", n.GetPowerState()}, {"target power", n.GetTargetPowerState()},
		{"maintenance", yes(n.GetMaintenance(), n.GetMaintenanceReason())}, {"fault", n.GetFault()}, {"last error", n.GetLastError()},
		{"lock", lock}, {"protected", yes(n.GetProtected(), n.GetProtectedReason())}, {"retired", yes(n.GetRetired(), "")},
		{"owner", n.GetOwner()}, {"lessee", n.GetLessee()}, {"automated clean", automated}, {"ports", strings.Join(macs, ", ")},
		{"driver info", pairs(n.GetDriverInfo())}, {"properties", pairs(n.GetProperties())}, {"extra", pairs(n.GetExtra())},
		{"traits", strings.Join(n.GetTraits(), ", ")}, {"resource class", n.GetResourceClass()}, {"boot mode", n.GetBootMode()},
		{"instance", in.GetUuid()}, {"image", strings.TrimSpace(in.GetImage().GetUrl() + " " + in.GetImage().GetFormat())},
		{"image sha256", in.GetImage().GetSha256()}, {"verified", in.GetImageDigest()}, {"root device", pairs(in.GetRootDeviceHints())},
		{"disk", in.GetDiskId()}, {"hostname", in.GetHostname()}, {"wiped", wipe}, {"tenanted", yes(n.GetTenanted(), "a tenant's data may be on the disks")},
		{"boot tier", map[bool]string{true: "weak: the boot secret crossed the segment in clear (plain PXE)"}[n.GetWeakBoot()]},
		{"version", fmt.Sprint(n.GetVersion())}, {"created", clock(n.GetCreatedAt())}, {"updated", clock(n.GetUpdatedAt())},
	}
}

// yes is empty for false; a reason may be left without the thing that it was for.
func yes(on bool, reason string) string {
	switch {
	case on && reason != "":
		return "yes: " + reason
	case on:
		return "yes"
	case reason != "" && !strings.HasPrefix(reason, "a tenant"):
		return "no: " + reason
	}
	return ""
}

func colon(s string) string {
	if s == "" {
		return ""
	}
	return ": " + view.Clean(s)
}

func pairs(m map[string]string) string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	out := make([]string, 0, len(m))
	for _, k := range keys {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, ", ")
}

// fields are the flags that create and set share, with the field mask paths they change.
type fields struct {
	name, description, resourceClass, owner, lessee, protectedReason string
	driverInfo, properties, extra                                    []string
	traits                                                           []string
	protected, retired                                               bool
	automatedClean                                                   string
}

func (f *fields) flags(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.name, "name", "", "name, unique")
	fl.StringVar(&f.description, "description", "", "for people")
	fl.StringVar(&f.resourceClass, "resource-class", "", "resource class")
	fl.StringVar(&f.owner, "owner", "", "project that owns the hardware")
	fl.StringVar(&f.lessee, "lessee", "", "project that uses it")
	fl.StringArrayVar(&f.driverInfo, "driver-info", nil, "KEY=VALUE for the driver, such as redfish_address; @FILE as value reads a file, no value removes the key")
	fl.StringArrayVar(&f.properties, "property", nil, "KEY=VALUE; no value removes the key")
	fl.StringArrayVar(&f.extra, "extra", nil, "KEY=VALUE; no value removes the key")
	fl.StringSliceVar(&f.traits, "trait", nil, "all its traits, such as CUSTOM_GPU; one by one: farrier node trait")
	fl.BoolVar(&f.protected, "protected", false, "refuse undeploy, rebuild and delete")
	fl.StringVar(&f.protectedReason, "protected-reason", "", "why")
	fl.BoolVar(&f.retired, "retired", false, "leave it manageable after the next clean")
	fl.StringVar(&f.automatedClean, "automated-clean", "", "true or false; absent: the cluster's setting")
}

// apply fills n from the flags that were given and returns their paths. Maps are changed key by key: the keys that are
// not named stay, and an empty value takes its key away.
func (f *fields) apply(c *cobra.Command, n *farrierv1.Node) (paths []string, err error) {
	set := func(flag, path string, fill func()) {
		if c.Flags().Changed(flag) {
			fill()
			paths = append(paths, path)
		}
	}
	set("name", "name", func() { n.Name = f.name })
	set("description", "description", func() { n.Description = f.description })
	set("resource-class", "resource_class", func() { n.ResourceClass = f.resourceClass })
	set("owner", "owner", func() { n.Owner = f.owner })
	set("lessee", "lessee", func() { n.Lessee = f.lessee })
	set("trait", "traits", func() { n.Traits = f.traits })
	set("protected", "protected", func() { n.Protected = f.protected })
	set("protected-reason", "protected_reason", func() { n.ProtectedReason = f.protectedReason })
	set("retired", "retired", func() { n.Retired = f.retired })
	set("automated-clean", "automated_clean", func() {
		v := f.automatedClean == "true"
		n.AutomatedClean = &v
		if !v && f.automatedClean != "false" {
			err = fault.New(fault.Invalid, "--automated-clean", "%q is not true or false", f.automatedClean).WithHelp("give --automated-clean=true or --automated-clean=false")
		}
	})
	if err != nil {
		return nil, err
	}
	for _, m := range []struct {
		flag, path string
		in         []string
		out        *map[string]string
	}{{"driver-info", "driver_info", f.driverInfo, &n.DriverInfo}, {"property", "properties", f.properties, &n.Properties}, {"extra", "extra", f.extra, &n.Extra}} {
		if !c.Flags().Changed(m.flag) {
			continue
		}
		kv, err := keyValues(m.flag, m.in)
		if err != nil {
			return nil, err
		}
		for k, v := range kv {
			if path, ok := strings.CutPrefix(v, "@"); ok {
				data, err := readFile(path)
				if err != nil {
					return nil, err
				}
				kv[k] = strings.TrimRight(string(data), "\n")
			}
		}
		for _, k := range slices.Sorted(maps.Keys(kv)) {
			paths = append(paths, m.path+"."+k)
			if kv[k] == "" {
				delete(kv, k)
			}
		}
		*m.out = kv
	}
	return paths, nil
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read "+filepath.Base(path), "%w", err).WithHelp("name a file that can be read")
	}
	if info.Size() > maxAttachment {
		return nil, fault.New(fault.TooLarge, "read "+filepath.Base(path), "it has %d bytes, at most %d are allowed", info.Size(), maxAttachment).
			WithHelp("put larger data behind a URL that the machine reads itself")
	}
	data, err := os.ReadFile(path)
	return data, fault.Wrap("read "+path, err)
}

func (a *app) nodeCreate() *cobra.Command {
	var f fields
	var driver, group, id string
	var macs []string
	c := &cobra.Command{Use: "create --name NAME --driver redfish --mac MAC --driver-info redfish_address=https://…", Short: "Enrol a machine", Args: exactly(0)}
	f.flags(c)
	c.Flags().StringVar(&driver, "driver", "redfish", "hardware type")
	c.Flags().StringVar(&group, "group", "", "group of agents that can reach it")
	c.Flags().StringVar(&id, "id", "", "UUID; drawn if absent")
	c.Flags().StringSliceVar(&macs, "mac", nil, "MAC addresses of its ports; MAC=IP reserves an address")
	c.RunE = a.run(func(s *session, _ []string) error {
		n := &farrierv1.Node{Id: id, Driver: driver, Group: group}
		if _, err := f.apply(c, n); err != nil {
			return err
		}
		for _, m := range macs {
			mac, ip, _ := strings.Cut(m, "=")
			n.Ports = append(n.Ports, &farrierv1.Port{Address: mac, Ip: ip, PxeEnabled: true})
		}
		res, err := s.Nodes.CreateNode(s.ctx, &farrierv1.CreateNodeRequest{Node: n})
		if err != nil {
			return err
		}
		return s.Message(res.GetNode(), func() {
			s.say("%s enrolled as %s, owned by agent %s", view.Title(res.GetNode()), res.GetNode().GetId(), res.GetNode().GetAgent())
			s.say("next: farrier node manage %s --wait", view.Title(res.GetNode()))
		})
	})
	return c
}

func (a *app) nodeSet() *cobra.Command {
	var f fields
	var version uint64
	var driver, group string
	c := &cobra.Command{Use: "set NODE", Short: "Change fields of a machine", Args: exactly(1)}
	f.flags(c)
	c.Flags().StringVar(&driver, "driver", "", "hardware type")
	c.Flags().StringVar(&group, "group", "", "group of agents that can reach it")
	c.Flags().Uint64Var(&version, "if-version", 0, "only if the machine still has this version")
	wait := lockWait(c)
	c.RunE = a.run(func(s *session, args []string) error {
		old, err := s.Nodes.GetNode(s.ctx, &farrierv1.GetNodeRequest{Node: args[0]})
		if err != nil {
			return err
		}
		n := &farrierv1.Node{Id: old.GetNode().GetId()}
		paths, err := f.apply(c, n)
		if err != nil {
			return err
		}
		if c.Flags().Changed("driver") {
			n.Driver, paths = driver, append(paths, "driver")
		}
		if c.Flags().Changed("group") {
			n.Group, paths = group, append(paths, "group")
		}
		if len(paths) == 0 {
			return fault.New(fault.Invalid, "set", "nothing to change").WithHelp("see `farrier node set --help` for what can be changed")
		}
		res, err := s.Nodes.UpdateNode(s.ctx, &farrierv1.UpdateNodeRequest{Node: n, Mask: &fieldmaskpb.FieldMask{Paths: paths}, Version: version, Wait: wait()})
		if err != nil {
			return err
		}
		return s.Message(res.GetNode(), func() { s.say("%s: version %d", view.Title(res.GetNode()), res.GetNode().GetVersion()) })
	})
	return c
}

func (a *app) nodeDelete() *cobra.Command {
	c := &cobra.Command{Use: "delete NODE...", Short: "Forget a machine", Args: enough}
	wait := lockWait(c)
	c.RunE = a.run(func(s *session, args []string) error {
		return s.each(args, func(node string) error {
			res, err := s.Nodes.DeleteNode(s.ctx, &farrierv1.DeleteNodeRequest{Node: node, Wait: wait()})
			if err != nil {
				return err
			}
			return s.Message(res, func() { s.say("%s deleted", node) })
		})
	})
	return c
}

func (a *app) nodeValidate() *cobra.Command {
	c := &cobra.Command{Use: "validate NODE...", Short: "Show what stands in the way of work on machines; their BMCs are not called", Args: enough}
	c.RunE = a.run(func(s *session, args []string) error {
		return s.each(args, func(node string) error {
			res, err := s.Nodes.ValidateNode(s.ctx, &farrierv1.ValidateNodeRequest{Node: node})
			if err != nil {
				return err
			}
			var bad, help []string
			var rows [][]string
			for _, c := range res.GetChecks() {
				result := "ok"
				if c.GetError() != nil {
					result = "no"
					bad, help = append(bad, c.GetInterface()), append(help, c.GetError().GetHelp())
				}
				rows = append(rows, []string{c.GetInterface(), result, c.GetError().GetMessage()})
			}
			err = s.Message(res, func() { s.Rows([]string{"INTERFACE", "RESULT", "REASON"}, rows) })
			if err != nil || len(bad) == 0 {
				return err
			}
			return fault.New(fault.IllegalState, "validate "+node, "not ready for %s", strings.Join(bad, ", ")).WithHelp("%s", strings.Join(help, "; "))
		})
	})
	return c
}

func (a *app) nodeInventory() *cobra.Command {
	c := &cobra.Command{Use: "inventory NODE", Short: "Show what the last inspection found (JSON)", Args: exactly(1)}
	c.RunE = a.run(func(s *session, args []string) error {
		res, err := s.Nodes.GetInventory(s.ctx, &farrierv1.GetInventoryRequest{Node: args[0]})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(s.Out, string(res.GetInventoryJson()))
		return err
	})
	return c
}
