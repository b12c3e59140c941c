package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/pkg/fault"
)

func (a *app) coordinator() *cobra.Command {
	members := &cobra.Command{Use: "members", Short: "Show the coordinators", Args: exactly(0)}
	pick := choose(members, (*farrierv1.Member)(nil), "id,leader,version")
	members.RunE = a.run(func(s *session, _ []string) error {
		fields, err := pick()
		if err != nil {
			return err
		}
		res, err := s.Cluster.GetCluster(s.ctx, &farrierv1.GetClusterRequest{})
		if err != nil {
			return err
		}
		return s.things(fields, res, "members", func() {
			var rows [][]string
			for _, m := range res.GetMembers() {
				role := "follower"
				switch {
				case m.GetLeader():
					role = "leader"
				case !m.GetVoter():
					role = "joining"
				}
				rows = append(rows, []string{m.GetId(), role, m.GetApiAddress(), m.GetRaftAddress(), m.GetRackAddress(), contact(m), lag(m), m.GetVersion()})
			}
			s.Rows([]string{"MEMBER", "ROLE", "API", "RAFT", "RACK", "LAST CONTACT", "LAG", "VERSION"}, rows)
			s.say("\ncluster %s, term %d, applied %d of %d, generation %d, level %d", res.GetClusterId(), res.GetTerm(), res.GetAppliedIndex(), res.GetCommitIndex(), res.GetGeneration(), res.GetFeatureLevel())
			for _, alarm := range res.GetAlarms() {
				s.say("alarm: %s", alarm)
			}
		})
	})
	remove := &cobra.Command{Use: "remove MEMBER", Short: "Take a coordinator out of the cluster, and its certificate back", Args: exactly(1)}
	remove.RunE = a.run(func(s *session, args []string) error {
		res, err := s.Cluster.RemoveMember(s.ctx, &farrierv1.RemoveMemberRequest{Id: args[0]})
		if err != nil {
			return err
		}
		return s.Message(res, func() { s.say("%s removed", args[0]) })
	})
	return noun("coordinator", "The coordinators themselves", members, remove, a.token("coordinator", false), noun("snapshot", "Backups of the state", a.snapshotSave(), a.snapshotRestore()))
}

// contact is when the leader last heard of a member.
func contact(m *farrierv1.Member) string {
	since := time.Duration(m.GetLastContactMs()) * time.Millisecond
	switch {
	case m.GetLeader():
		return "-"
	case since == 0:
		return "none"
	case since < time.Second:
		return fmt.Sprintf("%d ms ago", since.Milliseconds())
	default:
		return since.Truncate(time.Second).String() + " ago"
	}
}

// lag is how far a member's log is behind the leader's, in entries and time.
func lag(m *farrierv1.Member) string {
	since := time.Duration(m.GetLagMs()) * time.Millisecond
	switch {
	case m.GetLeader() || m.GetLastContactMs() == 0:
		return "-"
	case since < time.Second:
		return fmt.Sprintf("%d entries", m.GetBehind())
	default:
		return fmt.Sprintf("%d entries, %s", m.GetBehind(), since.Truncate(time.Second))
	}
}

func (a *app) snapshotSave() *cobra.Command {
	c := &cobra.Command{Use: "save FILE", Short: "Write the state to a file (sealed secrets stay sealed)", Args: exactly(1)}
	c.RunE = a.run(func(s *session, args []string) error {
		var total int64
		err := writeWhole(args[0], func(w io.Writer) (err error) {
			total, err = s.SaveSnapshot(s.ctx, w)
			return err
		})
		if err != nil {
			return fault.Wrap("save snapshot", client.Fault(err))
		}
		s.say("%d bytes written to %s", total, args[0])
		return nil
	})
	return c
}

// writeWhole has fill write a file that is there whole, on disk, or not at all: until then the earlier one stays.
func writeWhole(path string, fill func(io.Writer) error) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return fault.New(fault.Invalid, "", "%s is no regular file", path).WithHelp("name a file that is there or can be made")
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fault.New(fault.Invalid, "", "%w", err).WithHelp("name a file in a directory that you may write to")
	}
	defer os.Remove(tmp.Name()) // gone already when all went well
	defer tmp.Close()
	if err := fill(tmp); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (a *app) snapshotRestore() *cobra.Command {
	c := &cobra.Command{Use: "restore FILE --yes", Short: "Replace the state by a saved one: every session ends, every node is read before it is acted on", Args: exactly(1)}
	yes := c.Flags().Bool("yes", false, "I know that what happened since the snapshot is lost")
	c.RunE = a.run(func(s *session, args []string) error {
		const op = "restore snapshot"
		if !*yes {
			return fault.New(fault.Invalid, op, "it replaces the state of the whole cluster").WithHelp("add --yes to do it")
		}
		file, err := os.Open(args[0])
		if err != nil {
			return fault.New(fault.Invalid, op, "%w", err).WithHelp("name a file that `farrier coordinator snapshot save` wrote")
		}
		defer file.Close()
		res, err := s.RestoreSnapshot(s.ctx, file)
		if err != nil {
			return err
		}
		return s.Message(res, func() { s.say("restored: generation %d, %d nodes", res.GetGeneration(), res.GetNodes()) })
	})
	return c
}

// token makes join tokens for a role.
func (a *app) token(role string, group bool) *cobra.Command {
	c := &cobra.Command{Use: "token NAME", Short: "Make a one-use token with which " + article(role) + " joins", Args: exactly(1)}
	ttl := c.Flags().Duration("ttl", 10*time.Minute, "how long the token is good")
	g := ""
	if group {
		c.Flags().StringVar(&g, "group", "", "the agent's group")
	}
	c.RunE = a.run(func(s *session, args []string) error {
		res, err := s.Cluster.CreateJoinToken(s.ctx, &farrierv1.CreateJoinTokenRequest{Role: role, Name: args[0], Group: g, Ttl: durationpb.New(*ttl)})
		if err != nil {
			return err
		}
		return s.Message(res, func() { fmt.Fprintln(s.Out, res.GetToken()) })
	})
	return c
}

func article(noun string) string {
	if strings.ContainsAny(noun[:1], "aeiou") {
		return "an " + noun
	}
	return "a " + noun
}

func (a *app) setting() *cobra.Command {
	show := &cobra.Command{Use: "show", Short: "Show the cluster's timeouts and limits", Args: exactly(0)}
	pick := choose(show, (*farrierv1.Settings)(nil), "session_ttl")
	show.RunE = a.run(func(s *session, _ []string) error {
		fields, err := pick()
		if err != nil {
			return err
		}
		res, err := s.Cluster.GetSettings(s.ctx, &farrierv1.GetSettingsRequest{})
		if err != nil {
			return err
		}
		return s.thing(fields, res.GetSettings(), func() { s.Pairs(settingPairs(res.GetSettings())) })
	})
	set := &cobra.Command{Use: "set NAME=VALUE...", Short: "Change timeouts and limits", Args: enough}
	set.RunE = a.run(func(s *session, args []string) error {
		settings, paths, err := parseSettings(args)
		if err != nil {
			return err
		}
		res, err := s.Cluster.UpdateSettings(s.ctx, &farrierv1.UpdateSettingsRequest{Settings: settings, Mask: &fieldmaskpb.FieldMask{Paths: paths}})
		if err != nil {
			return err
		}
		return s.Message(res.GetSettings(), func() { s.Pairs(settingPairs(res.GetSettings())) })
	})
	return noun("setting", "The cluster's timeouts and limits", show, set)
}

func settingPairs(st *farrierv1.Settings) [][2]string {
	var out [][2]string
	m := st.ProtoReflect()
	for i := range m.Descriptor().Fields().Len() {
		fd := m.Descriptor().Fields().Get(i)
		value := fmt.Sprint(m.Get(fd).Interface())
		if fd.Kind() == protoreflect.MessageKind {
			value = m.Get(fd).Message().Interface().(*durationpb.Duration).AsDuration().String()
		}
		out = append(out, [2]string{string(fd.Name()), value})
	}
	return out
}

func parseSettings(args []string) (*farrierv1.Settings, []string, error) {
	st := &farrierv1.Settings{}
	m := st.ProtoReflect()
	var paths []string
	for _, arg := range args {
		name, value, given := strings.Cut(arg, "=")
		fd := m.Descriptor().Fields().ByName(protoreflect.Name(name))
		bad := func(why string) error {
			return fault.New(fault.Invalid, "set "+name, "%s", why).WithHelp("see the names with `farrier setting show`")
		}
		if !given {
			return nil, nil, fault.New(fault.Invalid, "set "+name, "a value is missing").WithHelp("write NAME=VALUE; see the names with `farrier setting show`")
		}
		if fd == nil {
			return nil, nil, bad("there is no such setting")
		}
		switch fd.Kind() {
		case protoreflect.MessageKind:
			d, err := time.ParseDuration(value)
			if err != nil {
				return nil, nil, bad(fmt.Sprintf("%q is not a duration such as 30s", value))
			}
			m.Set(fd, protoreflect.ValueOfMessage(proto.Message(durationpb.New(d)).ProtoReflect()))
		case protoreflect.Uint32Kind:
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return nil, nil, bad(fmt.Sprintf("%q is not a whole number", value))
			}
			m.Set(fd, protoreflect.ValueOfUint32(uint32(n)))
		case protoreflect.BoolKind:
			if value != "true" && value != "false" {
				return nil, nil, bad(fmt.Sprintf("%q is not true or false", value))
			}
			m.Set(fd, protoreflect.ValueOfBool(value == "true"))
		default:
			m.Set(fd, protoreflect.ValueOfString(value))
		}
		paths = append(paths, name)
	}
	return st, paths, nil
}
