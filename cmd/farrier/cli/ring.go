package cli

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/cmd/farrier/view"
	"github.com/farrier-project/farrier/pkg/fault"
)

func (a *app) ring() *cobra.Command {
	show := &cobra.Command{Use: "show", Short: "Show who owns how much, by group and hardware type", Args: exactly(0)}
	group := show.Flags().String("group", "", "only this group")
	pick := choose(show, (*farrierv1.Ring)(nil), "group,driver,members.agent")
	show.RunE = a.run(func(s *session, _ []string) error {
		fields, err := pick()
		if err != nil {
			return err
		}
		res, err := s.Rings.ShowRing(s.ctx, &farrierv1.ShowRingRequest{Group: *group})
		if err != nil {
			return err
		}
		if *group != "" && len(res.GetRings()) == 0 {
			return fault.New(fault.NotFound, "", "no agent and no machine is in group %q", *group).WithHelp("`farrier ring show` lists the groups")
		}
		return s.things(fields, res, "rings", func() {
			var rows [][]string
			for _, r := range res.GetRings() {
				for _, m := range r.GetMembers() {
					rows = append(rows, []string{r.GetGroup(), r.GetDriver(), m.GetAgent(), fmt.Sprint(m.GetWeight()), fmt.Sprint(m.GetNodes()), liveness(m.GetLive(), m.GetDraining()), fmt.Sprint(r.GetEpoch())})
				}
			}
			s.Rows([]string{"GROUP", "DRIVER", "AGENT", "WEIGHT", "NODES", "STATE", "EPOCH"}, rows)
		})
	})
	explain := &cobra.Command{Use: "explain NODE", Short: "Say why a machine has the owner that it has", Args: exactly(1)}
	explain.RunE = a.run(func(s *session, args []string) error {
		res, err := s.Rings.ExplainNode(s.ctx, &farrierv1.ExplainNodeRequest{Node: args[0]})
		if err != nil {
			return err
		}
		return s.Message(res, func() {
			s.say("%s is owned by %s: %s\n", args[0], cmp.Or(res.GetAgent(), "nobody"), res.GetReason())
			var rows [][]string
			for i, c := range res.GetCandidates() {
				rows = append(rows, []string{fmt.Sprint(i + 1), c.GetAgent(), fmt.Sprintf("%016x", c.GetHash()), fmt.Sprintf("%d of %d", c.GetLoad(), c.GetCap()), liveness(c.GetLive(), c.GetDraining()), c.GetVerdict()})
			}
			s.Rows([]string{"ORDER", "AGENT", "HASH", "LOAD", "STATE", "VERDICT"}, rows)
		})
	})
	rebalance := &cobra.Command{Use: "rebalance", Short: "Move resting machines to where a new one would go", Args: exactly(0)}
	rg := rebalance.Flags().String("group", "", "only this group")
	limit := rebalance.Flags().Uint32("limit", 100, "at most this many")
	dry := rebalance.Flags().Bool("dry-run", false, "only show the moves")
	rebalance.RunE = a.run(func(s *session, _ []string) error {
		res, err := s.Rings.Rebalance(s.ctx, &farrierv1.RebalanceRequest{Group: *rg, Limit: *limit, DryRun: *dry})
		if err != nil {
			return err
		}
		return s.Message(res, func() {
			var rows [][]string
			for _, m := range res.GetMoves() {
				rows = append(rows, []string{cmp.Or(m.GetNodeName(), m.GetNode()), m.GetFrom(), m.GetTo()})
			}
			s.Rows([]string{"NODE", "FROM", "TO"}, rows)
			s.say("%d moves", len(rows))
		})
	})
	return noun("ring", "Who owns which machine", show, explain, rebalance)
}

func liveness(live, draining bool) string {
	switch {
	case !live:
		return "dead"
	case draining:
		return "draining"
	default:
		return "live"
	}
}

func (a *app) agent() *cobra.Command {
	list := &cobra.Command{Use: "list", Short: "List rack agents", Args: exactly(0)}
	group := list.Flags().String("group", "", "only this group")
	pick := choose(list, (*farrierv1.Agent)(nil), "name,state,address")
	list.RunE = a.run(func(s *session, _ []string) error {
		fields, err := pick()
		if err != nil {
			return err
		}
		res, err := s.Agents.ListAgents(s.ctx, &farrierv1.ListAgentsRequest{Group: *group})
		if err != nil {
			return err
		}
		return s.things(fields, res, "agents", func() {
			var rows [][]string
			for _, g := range res.GetAgents() {
				rows = append(rows, []string{g.GetName(), g.GetGroup(), g.GetState(), fmt.Sprint(g.GetNodes()), fmt.Sprint(g.GetFreeWorkers()), strings.Join(g.GetDrivers(), ","), fmt.Sprint(g.GetWeight()), ago(g.GetRegisteredAt()), g.GetVersion(), g.GetAlarm()})
			}
			s.Rows([]string{"AGENT", "GROUP", "STATE", "NODES", "FREE", "DRIVERS", "WEIGHT", "SINCE", "VERSION", "ALARM"}, rows)
		})
	})
	one := func(use, short string, call func(s *session, name string) (*farrierv1.Agent, string, error)) *cobra.Command {
		c := &cobra.Command{Use: use + " AGENT", Short: short, Args: exactly(1)}
		c.RunE = a.run(func(s *session, args []string) error {
			g, told, err := call(s, args[0])
			if err != nil {
				return err
			}
			return s.Message(g, func() { s.say("%s: %s", args[0], told) })
		})
		return c
	}
	return noun("agent", "Rack agents", list,
		one("drain", "Hand an agent's machines over to others of its group, and give it no new ones", func(s *session, name string) (*farrierv1.Agent, string, error) {
			res, err := s.Agents.DrainAgent(s.ctx, &farrierv1.DrainAgentRequest{Agent: name})
			return res.GetAgent(), fmt.Sprintf("draining, %d machines are moving", res.GetMoving()), err
		}),
		one("undrain", "Let an agent take machines again", func(s *session, name string) (*farrierv1.Agent, string, error) {
			res, err := s.Agents.UndrainAgent(s.ctx, &farrierv1.UndrainAgentRequest{Agent: name})
			return res.GetAgent(), "takes machines again", err
		}),
		a.agentRemove(), a.token("agent", true))
}

func (a *app) agentRemove() *cobra.Command {
	c := &cobra.Command{Use: "remove AGENT", Short: "Forget an agent that is dead, or drained: only a new token brings it back", Args: exactly(1)}
	force := c.Flags().Bool("force", false, "also when it is live: its session ends, its machines move")
	c.RunE = a.run(func(s *session, args []string) error {
		res, err := s.Agents.RemoveAgent(s.ctx, &farrierv1.RemoveAgentRequest{Agent: args[0], Force: *force})
		if err != nil {
			return err
		}
		return s.Message(res, func() {
			s.say("%s: removed, %d machines moved; to bring it back: farrier agent token %s --group GROUP, then farrier-agent join", args[0], res.GetMoved(), args[0])
		})
	})
	return c
}

func (a *app) lock() *cobra.Command {
	list := &cobra.Command{Use: "list", Short: "Show who holds which machine, why, and since when", Args: exactly(0)}
	node := list.Flags().String("node", "", "only this machine")
	pick := choose(list, (*farrierv1.Lock)(nil), "node_name,holder,token")
	list.RunE = a.run(func(s *session, _ []string) error {
		fields, err := pick()
		if err != nil {
			return err
		}
		res, err := s.Locks.ListLocks(s.ctx, &farrierv1.ListLocksRequest{Node: *node})
		if err != nil {
			return err
		}
		return s.things(fields, res, "locks", func() {
			var rows [][]string
			for _, l := range res.GetLocks() {
				rows = append(rows, []string{cmp.Or(l.GetNodeName(), l.GetNode()), l.GetHolder(), l.GetPurpose(), ago(l.GetSince()), view.TokenText(l.GetToken()), fmt.Sprint(l.GetQueued())})
			}
			s.Rows([]string{"NODE", "HOLDER", "PURPOSE", "HELD", "TOKEN", "QUEUED"}, rows)
		})
	})
	brk := &cobra.Command{Use: "break NODE --reason TEXT", Short: "Take a lock from its holder: work behind it goes on under a new token, the old one is refused", Args: exactly(1)}
	reason := brk.Flags().String("reason", "", "why; recorded")
	var only view.Token
	brk.Flags().Var(&only, "token", "only if the lock still has this token")
	brk.RunE = a.run(func(s *session, args []string) error {
		res, err := s.Locks.BreakLock(s.ctx, &farrierv1.BreakLockRequest{Node: args[0], Token: uint64(only), Reason: *reason})
		if err != nil {
			return err
		}
		return s.Message(res, func() {
			if l := res.GetLock(); l.GetToken() != 0 {
				s.say("%s: broken; the work goes on with %s under token %s", args[0], l.GetHolder(), view.TokenText(l.GetToken()))
			} else {
				s.say("%s: broken; the lock is free", args[0])
			}
		})
	})
	acquire := &cobra.Command{Use: "acquire NODE --purpose TEXT", Short: "Hold a machine, so that nothing else acts on it", Args: exactly(1)}
	purpose := acquire.Flags().String("purpose", "", "what others are told")
	wait := lockWait(acquire)
	acquire.RunE = a.run(func(s *session, args []string) error {
		res, err := s.Locks.AcquireLock(s.ctx, &farrierv1.AcquireLockRequest{Node: args[0], Purpose: *purpose, Wait: wait()})
		if err != nil {
			return err
		}
		return s.Message(res.GetLock(), func() {
			s.say("%s is yours for at most 15 minutes, token %[2]s; release it with: farrier lock release %[1]s --token %[2]s", args[0], view.TokenText(res.GetLock().GetToken()))
		})
	})
	release := &cobra.Command{Use: "release NODE --token N", Short: "Let go of a machine", Args: exactly(1)}
	var own view.Token
	release.Flags().Var(&own, "token", "the token of the lock")
	release.RunE = a.run(func(s *session, args []string) error {
		res, err := s.Locks.ReleaseLock(s.ctx, &farrierv1.ReleaseLockRequest{Node: args[0], Token: uint64(own)})
		if err != nil {
			return err
		}
		return s.Message(res, func() { s.say("%s released", args[0]) })
	})
	return noun("lock", "Exclusive locks on machines", list, brk, acquire, release)
}

func (a *app) port() *cobra.Command {
	list := &cobra.Command{Use: "list", Short: "List ports", Args: exactly(0)}
	node := list.Flags().String("node", "", "only of this machine")
	pick := choose(list, (*farrierv1.Port)(nil), "address,node_name")
	list.RunE = a.run(func(s *session, _ []string) error {
		fields, err := pick()
		if err != nil {
			return err
		}
		all := &farrierv1.ListPortsResponse{}
		for token := ""; ; {
			res, err := s.Ports.ListPorts(s.ctx, &farrierv1.ListPortsRequest{Node: *node, PageSize: 500, PageToken: token})
			if err != nil {
				return err
			}
			all.Ports = append(all.Ports, res.GetPorts()...)
			if token = res.GetNextPageToken(); token == "" {
				break
			}
		}
		return s.things(fields, all, "ports", func() {
			var rows [][]string
			for _, p := range all.GetPorts() {
				rows = append(rows, []string{p.GetAddress(), p.GetIp(), fmt.Sprint(p.GetPxeEnabled()), p.GetName(), cmp.Or(p.GetNodeName(), p.GetNode()), p.GetId()})
			}
			s.Rows([]string{"MAC", "IP", "PXE", "NAME", "NODE", "ID"}, rows)
		})
	})
	create := &cobra.Command{Use: "create NODE MAC", Short: "Add a port to a machine", Args: exactly(2)}
	ip := create.Flags().String("ip", "", "reserve this address")
	pxe := create.Flags().Bool("pxe", true, "boot from this port")
	wait := lockWait(create)
	create.RunE = a.run(func(s *session, args []string) error {
		res, err := s.Ports.CreatePort(s.ctx, &farrierv1.CreatePortRequest{Port: &farrierv1.Port{Node: args[0], Address: args[1], Ip: *ip, PxeEnabled: *pxe}, Wait: wait()})
		if err != nil {
			return err
		}
		return s.Message(res.GetPort(), func() { s.say("port %s added to %s", res.GetPort().GetAddress(), args[0]) })
	})
	set := &cobra.Command{Use: "set PORT", Short: "Change a port, by id or MAC", Args: exactly(1)}
	address := set.Flags().String("address", "", "its MAC address")
	name := set.Flags().String("name", "", "a name for people")
	setIP := set.Flags().String("ip", "", "reserve this address; empty: none")
	setPXE := set.Flags().Bool("pxe", true, "boot from this port")
	version := set.Flags().Uint64("if-version", 0, "only if the port still has this version")
	swait := lockWait(set)
	set.RunE = a.run(func(s *session, args []string) error {
		old, err := s.Ports.GetPort(s.ctx, &farrierv1.GetPortRequest{Port: args[0]})
		if err != nil {
			return err
		}
		mask := &fieldmaskpb.FieldMask{}
		for _, f := range [][2]string{{"address", "address"}, {"name", "name"}, {"ip", "ip"}, {"pxe", "pxe_enabled"}} {
			if set.Flags().Changed(f[0]) {
				mask.Paths = append(mask.Paths, f[1])
			}
		}
		if len(mask.Paths) == 0 {
			return fault.New(fault.Invalid, "set", "nothing to change").WithHelp("see `farrier port set --help` for what can be changed")
		}
		p := &farrierv1.Port{Id: old.GetPort().GetId(), Address: *address, Name: *name, Ip: *setIP, PxeEnabled: *setPXE}
		res, err := s.Ports.UpdatePort(s.ctx, &farrierv1.UpdatePortRequest{Port: p, Mask: mask, Version: *version, Wait: swait()})
		if err != nil {
			return err
		}
		return s.Message(res.GetPort(), func() { s.say("port %s: version %d", res.GetPort().GetAddress(), res.GetPort().GetVersion()) })
	})
	del := &cobra.Command{Use: "delete PORT", Short: "Remove a port, by id or MAC", Args: exactly(1)}
	dwait := lockWait(del)
	del.RunE = a.run(func(s *session, args []string) error {
		res, err := s.Ports.DeletePort(s.ctx, &farrierv1.DeletePortRequest{Port: args[0], Wait: dwait()})
		if err != nil {
			return err
		}
		return s.Message(res, func() { s.say("port %s removed", args[0]) })
	})
	return noun("port", "Network interfaces of machines", list, create, set, del)
}
