package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/cmd/farrier/outcome"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/test/lab/site"
)

// restarted starts processes again.
type restarted struct {
	k  *kit
	ps []*site.Process
}

func (r restarted) start() {
	if r.k != nil {
		r.k.restart(r.ps)
	}
}

func (k *kit) loseLeader() restarted {
	p := k.leader(k.ctx())
	p.Kill()
	return restarted{k, []*site.Process{p}}
}

// joining: tokens that are over, and an agent from the future.
func (k *kit) joining() {
	k.sub("expired token", func(k *kit) {
		before := k.elapsed()
		agent := strings.TrimSpace(k.done("agent", "token", "late", "--group", "rack1", "--ttl", "1ms").out)
		operator := strings.TrimSpace(k.done("operator", "token", "late", "--ttl", "1ms").out)
		k.until("the tokens are over", func(context.Context) bool { return k.elapsed() > before+2*time.Second })
		k.check(wrong{kind: fault.Expired, says: []string{"expired", "farrier agent token late"}}, k.join(agent, 1))
		dir := filepath.Join(k.t.TempDir(), "late")
		k.farrier("--config", dir, "operator", "join", operator).refused(k.t, outcome.ExitDenied, "expired", "farrier operator token late")
		said := k.daemon("farrier-agent", "join", "--data", dir, "--token", agent)
		if !strings.Contains(said, "expired") || !strings.Contains(said, "farrier agent token late --group rack1") {
			k.t.Errorf("the agent says %q", said)
		}
		k.noAgentCalled("late")
	})
	k.sub("a token is good once", func(k *kit) {
		token := strings.TrimSpace(k.done("operator", "token", "twice").out)
		dir := k.t.TempDir()
		k.done("--config", filepath.Join(dir, "first"), "operator", "join", token)
		k.done("--config", filepath.Join(dir, "first"), "node", "list")
		k.farrier("--config", filepath.Join(dir, "second"), "operator", "join", token).refused(k.t, outcome.ExitDenied, "used", "farrier operator token twice")
	})
	k.sub("half a token", func(k *kit) {
		token := strings.TrimSpace(k.done("operator", "token", "half").out)
		k.farrier("--config", filepath.Join(k.t.TempDir(), "half"), "operator", "join", token[:len(token)-9]).refused(k.t, outcome.ExitUsage, "whole")
	})
	k.sub("newer agent", func(k *kit) {
		token := strings.TrimSpace(k.done("agent", "token", "newer", "--group", "rack1").out)
		k.check(wrong{kind: fault.Version, says: []string{"newer", "99", "coordinators first"}}, k.join(token, 99))
		k.noAgentCalled("newer")
		if err := k.join(token, 1); err != nil { // the token was not used up
			k.t.Errorf("the agent of today's level cannot join: %v", client.Fault(err))
		}
	})
}

func (k *kit) elapsed() time.Duration {
	k.t.Helper()
	res, err := k.Client.Cluster.GetCluster(k.ctx(), &farrierv1.GetClusterRequest{})
	if err != nil {
		k.t.Fatal(client.Fault(err))
	}
	return res.GetElapsed().AsDuration()
}

// join is what an agent of a level does with its token.
func (k *kit) join(text string, level uint32) error {
	k.t.Helper()
	token, err := identity.ParseJoinToken(text)
	if err != nil {
		k.t.Fatal(err)
	}
	var csr [2][]byte
	for i := range csr {
		store, err := identity.NewStore(filepath.Join(k.t.TempDir(), fmt.Sprint(i)))
		if err != nil {
			k.t.Fatal(err)
		}
		if csr[i], err = store.CSR(); err != nil {
			k.t.Fatal(err)
		}
	}
	h := &http.Client{Transport: &http.Transport{TLSClientConfig: identity.JoinTLS(token.CAHash), ForceAttemptHTTP2: true}}
	defer h.CloseIdleConnections()
	_, err = farrierv1connect.NewJoinServiceClient(h, "https://"+token.Addresses[0]).Join(k.ctx(),
		&farrierv1.JoinRequest{Token: text, CsrDer: csr[0], IntermediateCsrDer: csr[1], Version: "test", FeatureLevel: level})
	return err
}

// daemon runs a daemon's command that must fail, and returns what it said.
func (k *kit) daemon(program string, args ...string) string {
	k.t.Helper()
	var said bytes.Buffer
	cmd := exec.CommandContext(k.ctx(), filepath.Join(binaries, program), args...)
	cmd.Stderr = &said
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) {
		k.t.Errorf("%s %s: %v", program, args[0], err)
	}
	k.t.Logf("%s %s\n%s", program, args[0], said.String())
	return said.String()
}

func (k *kit) noAgentCalled(name string) {
	k.t.Helper()
	res, err := k.Client.Agents.ListAgents(k.ctx(), &farrierv1.ListAgentsRequest{})
	if err != nil {
		k.t.Fatal(client.Fault(err))
	}
	for _, a := range res.GetAgents() {
		if a.GetName() == name {
			k.t.Errorf("agent %s is there: %v", name, a)
		}
	}
}

// noAgent: both agents are gone.
func (k *kit) noAgent() {
	m := k.Machines[small]
	for _, p := range k.Agents {
		p.Kill()
	}
	k.until("the agents' sessions ended", func(ctx context.Context) bool {
		res, err := k.Client.Agents.ListAgents(ctx, &farrierv1.ListAgentsRequest{})
		if err != nil {
			k.t.Fatal(client.Fault(err))
		}
		for _, a := range res.GetAgents() {
			if a.GetState() == "live" {
				return false
			}
		}
		return true
	})
	k.refuse(wrong{kind: fault.NoAgent, status: outcome.ExitUnavailable, says: []string{"rack1", "no live agent", "farrier agent list"},
		call: k.provision(&farrierv1.SetProvisionStateRequest{Node: m.Name, Verb: "manage"}),
		args: []string{"node", "manage", m.Name}})
	k.refuse(wrong{kind: fault.NoAgent, status: outcome.ExitUnavailable, says: []string{"rack1", "no live agent"},
		call: func(ctx context.Context) error {
			_, err := k.Client.Nodes.SetPowerState(ctx, &farrierv1.SetPowerStateRequest{Node: m.Name, Target: "power on"})
			return err
		},
		args: []string{"node", "power", "on", m.Name}})
	k.restart(k.Agents)
	if err := k.WaitAgents(k.ctx(), len(k.Agents)); err != nil {
		k.t.Fatal(err)
	}
	k.done("node", "manage", m.Name, "--wait")
}

// noQuorum: one coordinator of three is left.
func (k *kit) noQuorum() {
	m := k.Machines[small]
	before := k.picture()
	k.Coordinators[1].Kill()
	k.Coordinators[2].Kill()
	at := k.address(k.Coordinators[0])
	write := k.begin("--server", at, "--timeout", "10s", "node", "set", m.Name, "--description", "nobody decides")
	read := k.begin("--timeout", "10s", "node", "list")
	api := make(chan error, 1)
	go func() { api <- k.undecided(at, m.Name) }()
	hasty := k.begin("--timeout", "1s", "node", "list")
	k.sub("hasty", func(k *kit) { k.finish(hasty).refused(k.t, outcome.ExitUnavailable, "in time", "--timeout") })
	k.sub("write", func(k *kit) {
		k.finish(write).refused(k.t, outcome.ExitUnavailable, "leads", "more than half of the coordinators")
	})
	k.sub("read", func(k *kit) {
		k.finish(read).refused(k.t, outcome.ExitUnavailable, "more than half of the coordinators")
	})
	k.sub("stale read", func(k *kit) {
		if out := k.done("--server", at, "node", "list", "--stale").out; !strings.Contains(out, m.Name) {
			k.t.Errorf("a stale list says %q", out)
		}
	})
	k.sub("api", func(k *kit) {
		k.check(wrong{kind: fault.NoQuorum, says: []string{"leads", "more than half of the coordinators"}}, <-api)
	})
	k.restart(k.Coordinators[1:])
	k.done("node", "set", m.Name, "--description", "")
	if after := k.picture(); len(after.GetNodes()) != len(before.GetNodes()) {
		k.t.Errorf("nodes were lost: %v", after)
	}
	if n := k.node(m.Name); n.GetDescription() != "" {
		k.t.Errorf("a refused change was made: %q", n.GetDescription())
	}
}

// undecided asks one coordinator for a change, and does not go on asking.
func (k *kit) undecided(at, node string) error {
	store, err := identity.OpenStore(k.Operator)
	if err != nil {
		return err
	}
	c, err := client.New(client.Config{Identity: store, Addresses: []string{at}, Patience: time.Millisecond})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Nodes.UpdateNode(k.t.Context(), &farrierv1.UpdateNodeRequest{Node: &farrierv1.Node{Name: node, Description: "x"},
		Mask: &fieldmaskpb.FieldMask{Paths: []string{"description"}}})
	return err
}

func (k *kit) address(p *site.Process) string {
	k.t.Helper()
	var at struct {
		API string `json:"api"`
	}
	if err := p.Addresses(&at); err != nil {
		k.t.Fatal(err)
	}
	return at.API
}
