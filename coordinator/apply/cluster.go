package apply

import (
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

func (s *Applier) initCluster(c command.InitCluster) command.Result {
	if s.Root.Cluster.ID != "" {
		return refuse(fault.New(fault.Exists, "init cluster", "the cluster is %s already", s.Root.Cluster.ID))
	}
	if c.ClusterID == "" || c.ClusterID != s.Header.Cluster {
		return refuse(fault.New(fault.Invalid, "init cluster", "the command names cluster %q and %q", c.ClusterID, s.Header.Cluster))
	}
	if err := checkSettings(c.Settings); err != nil {
		return refuse(err)
	}
	s.Root.Cluster = state.Cluster{ID: c.ClusterID, Generation: 1, Level: state.Level, CACert: c.CACert, CAKey: c.CAKey}
	s.Root.Settings = c.Settings
	for _, x := range c.Issued {
		s.certify(x, "")
	}
	s.Emit(state.EventGeneration, nil, "generation", "1", "reason", "init")
	return ok()
}

func (s *Applier) updateSettings(c command.UpdateSettings) command.Result {
	if err := checkSettings(c.Settings); err != nil {
		return refuse(err)
	}
	s.Root.Settings = c.Settings
	s.jobs.LimitsChanged()
	s.Emit(state.EventSettings, nil)
	return ok()
}

// checkSettings refuses settings under which nothing could work.
func checkSettings(c command.Settings) error {
	bad := func(field, format string, args ...any) error {
		return fault.New(fault.Invalid, "check settings", format, args...).WithDetail(&fault.FieldDetail{Field: field})
	}
	for _, d := range [...]struct {
		field string
		value int64
	}{
		{"session_ttl", int64(c.SessionTTL)}, {"deploy_callback_timeout", int64(c.DeployTimeout)},
		{"clean_callback_timeout", int64(c.CleanTimeout)}, {"inspect_wait_timeout", int64(c.InspectTimeout)},
		{"boot_attempt_ttl", int64(c.BootTTL)}, {"ramdisk_silence", int64(c.RamdiskSilence)},
		{"ramdisk_heartbeat", int64(c.RamdiskHeartbeat)}, {"bmc_change_deadline", int64(c.BMCChangeDeadline)},
		{"step_deadline", int64(c.StepDeadline)}, {"step_tries", int64(c.StepTries)}, {"boot_tries", int64(c.BootTries)},
		{"max_concurrent_deploy", int64(c.MaxDeploy)}, {"max_concurrent_clean", int64(c.MaxClean)},
	} {
		if d.value <= 0 {
			return bad(d.field, "%s must be above zero", d.field)
		}
	}
	switch c.Erase {
	case "auto", node.WipeDiscard, node.WipeOverwrite, node.WipeMetadata:
	default:
		return bad("erase", "erase is %q, not auto, discard, overwrite or metadata", c.Erase)
	}
	if c.RamdiskSilence <= c.RamdiskHeartbeat {
		return bad("ramdisk_silence", "a ramdisk that beats every %s would be called silent after %s", c.RamdiskHeartbeat, c.RamdiskSilence)
	}
	return nil
}

func (s *Applier) putMember(c command.PutMember) command.Result {
	m := c.Member
	if m.ID == "" || len(m.ID) > state.MaxNameLen {
		return refuse(fault.New(fault.Invalid, "put member", "a coordinator needs an id").WithDetail(&fault.FieldDetail{Field: "id"}))
	}
	if m.Level < s.Root.Cluster.Level {
		return refuse(fault.New(fault.Version, "put member", "coordinator %s speaks level %d, the cluster is at %d", m.ID, m.Level, s.Root.Cluster.Level).
			WithHelp("install the version that the others run"))
	}
	old := s.Members.Find(m.ID)
	if old != nil && *old == m {
		return ok()
	}
	what := "joined"
	if old != nil {
		what = "changed"
	}
	s.Members.Put(&s.Log, &m)
	s.Emit(state.EventMember, nil, "member", m.ID, "state", what)
	return ok()
}

func (s *Applier) removeMember(c command.RemoveMember) command.Result {
	revoked := 0
	if !c.Rejoins {
		revoked = s.revoke(state.RoleCoordinator, c.ID, [32]byte{}, "it was removed")
	}
	if s.Members.Find(c.ID) == nil {
		if revoked > 0 { // it joined and was never recorded
			return ok()
		}
		return refuse(fault.New(fault.NotFound, "remove member", "there is no coordinator %s", c.ID))
	}
	s.Members.Drop(&s.Log, c.ID)
	s.Emit(state.EventMember, nil, "member", c.ID, "state", "removed")
	return ok()
}

// createJoinToken stores a token's hash until it expires.
func (s *Applier) createJoinToken(c command.CreateJoinToken) command.Result {
	const op = "create join token"
	switch {
	case c.ID == "" || c.Name == "" || len(c.ID) > state.MaxNameLen || len(c.Name) > state.MaxNameLen:
		return refuse(fault.New(fault.Invalid, op, "a token needs an id and a name"))
	case c.Role != "coordinator" && c.Role != "agent" && c.Role != "operator":
		return refuse(fault.New(fault.Invalid, op, "role %q cannot join", c.Role).WithDetail(&fault.FieldDetail{Field: "role"}))
	case c.TTL <= 0 || c.TTL > state.JoinTokenTTLMax:
		return refuse(fault.New(fault.Invalid, op, "a token lives up to %s, not %s", state.JoinTokenTTLMax, c.TTL).WithDetail(&fault.FieldDetail{Field: "ttl"}))
	case s.JoinTokens.Find(c.ID) != nil:
		return refuse(fault.New(fault.Exists, op, "token %s exists", c.ID))
	case s.JoinTokens.Len() >= state.MaxJoinTokens:
		return refuse(fault.New(fault.Busy, op, "%d tokens are unused", state.MaxJoinTokens).WithHelp("wait until some expire"))
	}
	s.JoinTokens.Put(&s.Log, &state.JoinToken{ID: c.ID, Role: c.Role, Name: c.Name, Group: c.Group, Hash: c.Hash, Expires: s.Root.Elapsed + c.TTL, By: s.Header.Actor})
	s.Emit(state.EventJoinToken, nil, "token", c.ID, "state", "created", "role", c.Role, "name", c.Name)
	return ok()
}

// useJoinToken consumes a token; it succeeds for one key, and for a while again for that: its join may have been cut.
// Unknown, used, wrong and expired tokens have one answer.
func (s *Applier) useJoinToken(c command.UseJoinToken) command.Result {
	t := s.JoinTokens.Find(c.ID)
	used := t != nil && t.UsedBy != ([32]byte{})
	if t == nil || t.Expires <= s.Root.Elapsed || t.Hash != c.Hash || t.Role != c.Role || used && t.UsedBy != c.Key {
		return refuse(fault.New(fault.Expired, "use join token", "the token is unknown, used or expired").
			WithHelp("make a new one: farrier agent token NAME, farrier coordinator token NAME, farrier operator token NAME"))
	}
	if c.Key != ([32]byte{}) {
		if err := s.checkKey(c.Key, t.Role, t.Name); err != nil {
			return refuse(err)
		}
	}
	if used {
		return ok()
	}
	if err := s.checkNameFree(t, c.Key); err != nil {
		return refuse(err)
	}
	if t.Role == state.RoleCoordinator && s.Members.Find(t.Name) != nil { // an empty log under a name that votes loses what is committed
		return refuse(fault.New(fault.Exists, "use join token", "coordinator %s is a member already", t.Name).
			WithHelp("take it out first: farrier coordinator remove %s", t.Name))
	}
	if c.Key == ([32]byte{}) {
		s.JoinTokens.Drop(&s.Log, c.ID)
	} else {
		next := *t
		next.UsedBy, next.Expires = c.Key, min(t.Expires, s.Root.Elapsed+state.JoinAgain)
		s.JoinTokens.Put(&s.Log, &next)
		if t.Role != state.RoleOperator { // a machine that is set up anew: of two with one name, one is believed
			s.revoke(t.Role, t.Name, c.Key, "it joined again with another key")
		}
		s.certify(command.Issued{Key: c.Key, Role: t.Role, Name: t.Name, Group: t.Group, TTL: c.TTL}, t.By)
	}
	if a := s.Agent(t.Name); a != nil && a.Removed && t.Role == "agent" {
		s.Agents.Drop(&s.Log, a.Name)
	}
	s.Emit(state.EventJoinToken, nil, "token", c.ID, "state", "used", "role", t.Role, "name", t.Name)
	return ok()
}

// checkNameFree refuses a second coordinator or agent of a name while the first lives: an agent that has a session, and a
// coordinator whose join may be under way. A person may have several keys.
func (s *Applier) checkNameFree(t *state.JoinToken, key [32]byte) error {
	var other *state.Certificate
	s.Holders(t.Role, t.Name, func(c *state.Certificate) {
		if c.Key != key {
			other = c
		}
	})
	if other == nil || key == ([32]byte{}) {
		return nil
	}
	const op = "use join token"
	switch t.Role {
	case state.RoleAgent:
		if a := s.Agent(t.Name); a != nil && a.Session != "" {
			return fault.New(fault.Exists, op, "agent %s is live, with another key", t.Name).
				WithHelp("stop it first, or take it out: farrier agent remove %s; two agents need two names", t.Name)
		}
	case state.RoleCoordinator:
		joining := false
		s.JoinTokens.Scan(func(x *state.JoinToken) bool { joining = x.UsedBy == other.Key; return !joining })
		if joining {
			return fault.New(fault.Exists, op, "another machine joins as coordinator %s", t.Name).
				WithHelp("two coordinators need two names; if that join was given up: farrier coordinator remove %s", t.Name)
		}
	}
	return nil
}

// raiseLevel is valid when every member speaks the level.
func (s *Applier) raiseLevel(c command.RaiseLevel) command.Result {
	const op = "raise level"
	from := s.Root.Cluster.Level
	if c.Level <= from {
		return refuse(fault.New(fault.Invalid, op, "the level is %d and only rises", from))
	}
	var behind string
	s.Members.Scan(func(m *command.Member) bool {
		if m.Level < c.Level {
			behind = m.ID
		}
		return behind == ""
	})
	if behind != "" {
		return refuse(fault.New(fault.Version, op, "coordinator %s does not speak level %d", behind, c.Level).
			WithHelp("upgrade it, or remove it"))
	}
	s.Root.Cluster.Level = c.Level
	s.Emit(state.EventLevel, nil, "from", state.Num(from), "to", state.Num(c.Level))
	return ok()
}

// newGeneration ends all sessions and makes all later tokens greater than all earlier ones. Open attempts go on
// under new tokens once an agent is back; changing BMC attempts wait first, as after any session's end.
func (s *Applier) newGeneration(c command.NewGeneration) command.Result {
	if uint32(s.Root.Cluster.Generation)+1 > 1<<16-1-min(c.Skip, 1<<16-1) {
		return refuse(fault.New(fault.Internal, "new generation", "the generations are used up"))
	}
	s.Root.Cluster.Generation += 1 + uint16(c.Skip)
	s.Root.Cluster.Tokens = 0
	var ids []string
	s.Sessions.Scan(func(se *state.Session) bool { ids = append(ids, se.ID); return true })
	for _, id := range ids {
		s.endSession(id, "new generation")
	}
	var clients []string
	s.Clients.Scan(func(cl *state.Client) bool { clients = append(clients, cl.ID); return true })
	for _, id := range clients {
		s.endClient(id)
	}
	s.ForgetEvents() // a restored state is not what earlier events led to: who watches lists again
	s.Emit(state.EventGeneration, nil, "generation", state.Num(s.Root.Cluster.Generation), "reason", c.Reason)
	return command.Result{Version: uint64(s.Root.Cluster.Generation)}
}
