package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/replica/bootstrap"
	"github.com/farrier-project/farrier/coordinator/replica/home"
	"github.com/farrier-project/farrier/coordinator/replica/transport"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/fault"
)

const testCluster = "0123456789abcdef"

func header(actor string) command.Header {
	return command.Header{Cluster: testCluster, At: time.Unix(1790000000, 0), Actor: actor, Level: 1}
}

func initCommand() command.Command {
	return command.Command{Header: header("operator test"), Body: command.InitCluster{
		ClusterID: testCluster, CACert: []byte{1}, Settings: command.DefaultSettings(),
	}}
}

// member is one coordinator under test.
type member struct {
	*Replica
	name, addr string
	cfg        Config
	stop       context.CancelFunc
	done       chan error
}

// cluster is members in one process. It is used within a synctest bubble.
type cluster struct {
	t       *testing.T
	net     *transport.Network
	members []*member
}

// newCluster starts n members and waits until all are voters.
func newCluster(t *testing.T, n int, change func(*Config)) *cluster {
	t.Helper()
	c := &cluster{t: t, net: transport.NewNetwork(200 * time.Millisecond)}
	for i := range n {
		m := &member{name: fmt.Sprintf("c%d", i+1), addr: fmt.Sprintf("addr-%d", i+1)}
		m.cfg = Config{Place: home.Place{Cluster: testCluster, Member: m.name, Memory: home.NewMemory()}, Advertise: m.addr, Network: c.net, Clock: clock.NewMonotonic(),
			Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("member", m.name)}
		if change != nil {
			change(&m.cfg)
		}
		c.members = append(c.members, m)
		var err error
		if i == 0 {
			err = bootstrap.Cluster(m.cfg.Place, m.cfg.Advertise, initCommand())
		} else {
			err = bootstrap.Join(m.cfg.Place)
		}
		if err != nil {
			t.Fatal(err)
		}
		c.start(m)
		if i == 0 {
			c.leader(m)
			continue
		}
		if err := c.members[0].AddVoter(t.Context(), m.name, m.addr); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *cluster) start(m *member) {
	c.t.Helper()
	r, err := Open(m.cfg)
	if err != nil {
		c.t.Fatalf("%s: %v", m.name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.Replica, m.stop, m.done = r, cancel, make(chan error, 1)
	go func() { m.done <- r.Run(ctx) }()
}

// close stops what still runs; errors are the test's business only where it reads them itself.
func (c *cluster) close() {
	for _, m := range c.members {
		m.stop()
		<-m.ended
	}
	synctest.Wait()
}

// leader waits for one of the members to lead.
func (c *cluster) leader(among ...*member) *member {
	c.t.Helper()
	if len(among) == 0 {
		among = c.members
	}
	for range 2000 {
		for _, m := range among {
			if _, ok := m.Leading(); ok {
				return m
			}
		}
		time.Sleep(10 * time.Millisecond) // of the bubble's clock
	}
	c.t.Fatal("no leader within 20 s")
	return nil
}

func (c *cluster) others(not *member) []*member {
	var out []*member
	for _, m := range c.members {
		if m != not {
			out = append(out, m)
		}
	}
	return out
}

func propose(t *testing.T, m *member, body command.Body) command.Result {
	t.Helper()
	res, err := m.Propose(t.Context(), command.Command{Header: header("operator test"), Body: body})
	if err != nil {
		t.Fatalf("%s: %v", m.name, err)
	}
	if res[0].Err != nil {
		t.Fatalf("%s: %v", m.name, res[0].Err)
	}
	return res[0]
}

func putMember(i int) command.Body {
	return command.PutMember{Member: command.Member{ID: fmt.Sprintf("m%d", i), APIAddress: "a", Level: 1}}
}

func TestElectionAndCatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		defer c.close()
		lead := c.leader()
		if got := lead.View().Cluster().ID; got != testCluster {
			t.Fatalf("the first command was not applied: cluster %q", got)
		}
		for i := range 50 {
			propose(t, lead, putMember(i))
		}
		index, err := lead.ReadIndex(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range c.members {
			if err := m.WaitApplied(t.Context(), index); err != nil {
				t.Fatal(err)
			}
			if m.View().Hash() != lead.View().Hash() {
				t.Errorf("%s has another state", m.name)
			}
			if _, ok := m.Leading(); ok != (m == lead) {
				t.Errorf("%s leads: %v", m.name, ok)
			}
			if id, addr, known := m.Leader(); id != lead.name || addr != lead.addr || !known {
				t.Errorf("%s believes in %s at %s", m.name, id, addr)
			}
		}
		follower := c.others(lead)[0]
		_, err = follower.Propose(t.Context(), command.Command{Header: header("x"), Body: putMember(1)})
		if !fault.Is(err, fault.NotLeader) {
			t.Errorf("a follower's Propose: %v", err)
		}
		if _, err = follower.ReadIndex(t.Context()); !fault.Is(err, fault.NotLeader) {
			t.Errorf("a follower's ReadIndex: %v", err)
		}
	})
}

func TestLeaderLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		defer c.close()
		old := c.leader()
		propose(t, old, putMember(1))
		c.net.Isolate(old.addr)
		start := time.Now()
		lead := c.leader(c.others(old)...)
		propose(t, lead, putMember(2))
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("the next write took %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := old.ReadIndex(ctx); !fault.Is(err, fault.NoQuorum) {
			t.Errorf("the old leader's read: %v", err)
		}
		if _, err := old.Propose(ctx, command.Command{Header: header("x"), Body: putMember(3)}); !fault.Is(err, fault.NoQuorum) {
			t.Errorf("the old leader's proposal: %v", err)
		}
		c.net.Heal(old.addr)
		index, err := lead.ReadIndex(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := old.WaitApplied(t.Context(), index); err != nil {
			t.Fatal(err)
		}
		if _, ok := old.View().Member("m2"); !ok {
			t.Error("the old leader did not catch up")
		}
	})
}

func TestProposalInTheMiddleOfLeaderLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		defer c.close()
		old := c.leader()
		for _, m := range c.others(old) { // it still hears, but is not heard: the entry stays in its log only
			c.net.Cut(old.addr, m.addr)
		}
		_, err := old.Propose(t.Context(), command.Command{Header: header("x"), Body: putMember(1)})
		if !fault.Is(err, fault.UnknownOutcome) {
			t.Fatalf("got %v, want unknown outcome", err)
		}
	})
}

func TestRequestIsAnsweredOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		defer c.close()
		lead := c.leader()
		cmd := command.Command{Header: header("operator alice"), Body: command.CreateJoinToken{ID: "t", Role: "agent", Name: "a", Group: "g", TTL: time.Hour}}
		cmd.Header.Request = command.RequestID{Client: "c", Seq: 1, Digest: [16]byte{1}}
		first, err := lead.Propose(t.Context(), cmd)
		if err != nil || first[0].Err != nil {
			t.Fatal(err, first)
		}
		c.net.Isolate(lead.addr)
		next := c.leader(c.others(lead)...)
		again, err := next.Propose(t.Context(), cmd)
		if err != nil || again[0].Err != nil {
			t.Fatal(err, again)
		}
		if again[0].Flags&command.FlagRepeat == 0 {
			t.Errorf("the repeat was executed: %+v, first %+v", again[0], first[0])
		}
		cmd.Header.Request.Seq++
		if res, err := next.Propose(t.Context(), cmd); err != nil || !fault.Is(res[0].Err, fault.Exists) {
			t.Errorf("the same token under another id: %v, %+v", err, res)
		}
	})
}

func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		defer c.close()
		lead := c.leader()
		before := lead.Stats().Last
		const callers = 500
		errs := make(chan error, callers)
		for i := range callers {
			go func() {
				res, err := lead.Propose(context.Background(), command.Command{Header: header("x"), Body: putMember(i)}, command.Command{Header: header("x"), Body: command.RemoveMember{ID: fmt.Sprintf("m%d", i)}})
				if err == nil && len(res) != 2 {
					err = fmt.Errorf("%d results", len(res))
				}
				if err == nil {
					err = errors.Join(res[0].Err, res[1].Err)
				}
				errs <- err
			}()
		}
		for range callers {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		if n := lead.Stats().Last - before; n > callers/2 {
			t.Errorf("%d proposals took %d entries", callers, n)
		}
		n := 0
		lead.View().Members(func(*command.Member) bool { n++; return true })
		if n != 0 {
			t.Errorf("%d members are left: commands of one proposal were not applied in order", n)
		}
	})
}

func TestTooLargeAndEmptyProposals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		defer c.close()
		big := command.Command{Header: header("x"), Body: command.Outcome{Inventory: make([]byte, 200<<10)}}
		if _, err := c.members[0].Propose(t.Context(), big, big, big); !fault.Is(err, fault.TooLarge) {
			t.Errorf("three commands of 200 KiB: %v", err)
		}
		if _, err := c.members[0].Propose(t.Context(), command.Command{}); !fault.Is(err, fault.Invalid) {
			t.Errorf("a command without a body: %v", err)
		}
	})
}

func TestSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		defer c.close()
		lead := c.leader()
		s := lead.Subscribe()
		defer s.Close()
		synctest.Wait()
		<-s.C
		select {
		case <-s.C:
			t.Fatal("woken without a change")
		default:
		}
		propose(t, lead, putMember(1))
		<-s.C // the bubble ends with a deadlock if it never comes
	})
}
