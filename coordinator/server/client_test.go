package server

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/config"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// These tests have pkg/client speak to real coordinators.

func (s *site) open(dir string) *client.Client {
	s.t.Helper()
	c, err := client.Open(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

// TestOperatorsCertificatesEndedAfterThirtyDays: nobody renewed them. With a life of minutes two thirds are over at once,
// because certificates begin an hour before they are made.
func TestOperatorsCertificatesEndedAfterThirtyDays(t *testing.T) {
	s := newSite(t, func(cfg *config.Config) { cfg.CertificateTTL = 10 * time.Minute })
	dir := filepath.Join(s.dir, "operator")
	before := leaf(t, dir)
	c, other := s.open(dir), s.open(dir)
	if _, err := c.Nodes.ListNodes(t.Context(), &farrierv1.ListNodesRequest{}); err != nil {
		t.Fatal(client.Fault(err))
	}
	renewed := leaf(t, dir)
	if bytes.Equal(renewed, before) {
		t.Error("a call did not renew the certificate")
	}
	ends, err := c.Certificate()
	if err != nil || time.Until(ends) > 10*time.Minute || time.Until(ends) < 5*time.Minute {
		t.Errorf("it ends at %v, %v", ends, err)
	}
	if _, err := other.Nodes.ListNodes(t.Context(), &farrierv1.ListNodesRequest{}); err != nil {
		t.Fatal(client.Fault(err))
	}
	if !bytes.Equal(leaf(t, dir), renewed) {
		t.Error("two processes renewed it, one after the other")
	}
	if _, err := s.open(dir).Nodes.ListNodes(t.Context(), &farrierv1.ListNodesRequest{}); err != nil {
		t.Errorf("a call with the renewed certificate: %v", client.Fault(err))
	}
}

// TestNoOperatorHadAValidCertificate: root on a coordinator's host makes a token, with which one joins.
func TestNoOperatorHadAValidCertificate(t *testing.T) {
	s := newSite(t)
	m := s.members["c1"]
	cfg := s.config("c1")
	var out bytes.Buffer
	if err := OperatorToken(t.Context(), cfg, Env{Out: &out}, OperatorTokenOptions{Name: "alice", TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSpace(out.String())
	token, err := identity.ParseJoinToken(text)
	if err != nil || token.Role != identity.RoleOperator || token.Name != "alice" {
		t.Fatalf("token %+v, %v", token, err)
	}
	dir := filepath.Join(s.dir, "alice")
	store, err := identity.NewStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := store.CSR()
	if err != nil {
		t.Fatal(err)
	}
	rt := &http.Transport{TLSClientConfig: identity.JoinTLS(token.CAHash), ForceAttemptHTTP2: true}
	defer rt.CloseIdleConnections()
	joined, err := fc.NewJoinServiceClient(httpClient(rt), "https://"+m.api).Join(t.Context(), &farrierv1.JoinRequest{Token: text, CsrDer: csr, FeatureLevel: 1})
	if err != nil {
		t.Fatal(faultOf(err))
	}
	if err := store.Put(joined.GetChainDer(), joined.GetCaDer()); err != nil {
		t.Fatal(err)
	}
	if err := writeServers(dir, joined.GetApiAddresses()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.open(dir).Cluster.CreateJoinToken(t.Context(), &farrierv1.CreateJoinTokenRequest{Role: "agent", Name: "a1"}); err != nil {
		t.Errorf("alice administers: %v", client.Fault(err))
	}
	id, err := identity.OpenStore(identityDir(cfg))
	if err != nil {
		t.Fatal(err)
	}
	own := outward(id)
	defer own.CloseIdleConnections()
	_, err = fc.NewClusterServiceClient(httpClient(own), "https://"+m.api).CreateJoinToken(t.Context(), &farrierv1.CreateJoinTokenRequest{Role: "agent", Name: "a2"})
	if kindOf(t, err) != fault.Denied {
		t.Errorf("a coordinator made an agent's token: %v", err)
	}
}

// TestTheFirstOperatorKnewTheFirstCoordinatorOnly: init cannot name the members that join later, and after the first one's
// death there was no working command line.
func TestTheFirstOperatorKnewTheFirstCoordinatorOnly(t *testing.T) {
	s := newSite(t)
	dir := filepath.Join(s.dir, "operator")
	servers := func() []string {
		data, err := os.ReadFile(filepath.Join(dir, ServersFile))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(data))
	}
	if got := servers(); len(got) != 1 {
		t.Fatalf("after init: %v", got)
	}
	for _, name := range []string{"c2", "c3"} {
		res, err := s.open(dir).Cluster.CreateJoinToken(t.Context(), &farrierv1.CreateJoinTokenRequest{Role: "coordinator", Name: name})
		if err != nil {
			t.Fatal(client.Fault(err))
		}
		s.launch(name, func(ctx context.Context, cfg config.Config, env Env) error {
			return Join(ctx, cfg, env, JoinOptions{Token: res.GetToken(), Run: true})
		})
	}
	s.waitVoters(3)
	if got := servers(); len(got) != 2 {
		t.Errorf("the call between the joins left %v", got)
	}
	s.end(s.members["c1"])
	if _, err := s.open(dir).Nodes.ListNodes(t.Context(), &farrierv1.ListNodesRequest{}); err != nil {
		t.Errorf("after the first one's death: %v", client.Fault(err))
	}
	if got := servers(); len(got) != 3 {
		t.Errorf("the call after it left %v", got)
	}
	mine := s.members["c2"].api
	if err := os.WriteFile(filepath.Join(s.dir, "mine"), []byte(mine+"\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(s.dir, "mine"), filepath.Join(dir, ServersFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.open(dir).Nodes.ListNodes(t.Context(), &farrierv1.ListNodesRequest{}); err != nil {
		t.Error(client.Fault(err))
	}
	if got := servers(); len(got) != 1 || got[0] != mine {
		t.Errorf("a list that its owner may not write was changed: %v", got)
	}
}

// TestACallThatWaitedWasForgotten: a queued call is done when its turn comes, however many others its client made.
func TestACallThatWaitedWasForgotten(t *testing.T) {
	s := newSite(t)
	s.agent("a1", "default")
	c, holder := s.open(filepath.Join(s.dir, "operator")), s.open(filepath.Join(s.dir, "operator"))
	for i := range 2 {
		if _, err := c.Nodes.CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: web(i)}); err != nil {
			t.Fatal(client.Fault(err))
		}
	}
	held, err := holder.Locks.AcquireLock(t.Context(), &farrierv1.AcquireLockRequest{Node: "web-0", Purpose: "first"})
	if err != nil {
		t.Fatal(client.Fault(err))
	}
	waited := make(chan error, 1)
	go func() {
		_, err := c.Locks.AcquireLock(t.Context(), &farrierv1.AcquireLockRequest{Node: "web-0", Purpose: "second", Wait: &farrierv1.LockWait{Patient: true}})
		waited <- err
	}()
	until(t, "the queue", func() error {
		res, err := holder.Locks.ListLocks(t.Context(), &farrierv1.ListLocksRequest{Node: "web-0"})
		if err == nil && (len(res.GetLocks()) != 1 || res.GetLocks()[0].GetQueued() != 1) {
			err = fault.New(fault.NoMatch, "", "nobody waits")
		}
		return err
	})
	for i := range 100 {
		if _, err := c.Nodes.SetMaintenance(t.Context(), &farrierv1.SetMaintenanceRequest{Node: "web-1", On: i%2 == 0}); err != nil {
			t.Fatal(client.Fault(err))
		}
	}
	if _, err := holder.Locks.ReleaseLock(t.Context(), &farrierv1.ReleaseLockRequest{Node: "web-0", Token: held.GetLock().GetToken()}); err != nil {
		t.Fatal(client.Fault(err))
	}
	if err := <-waited; err != nil {
		t.Errorf("the call that waited: %v", client.Fault(err))
	}
}

// TestABackupAskedOneCoordinatorOnly: the first in the list is dead, and the next has to be asked, as by every other call.
func TestABackupAskedOneCoordinatorOnly(t *testing.T) {
	s := newSite(t)
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	for what, call := range map[string]func(*client.Client) error{
		"save": func(c *client.Client) error {
			var saved bytes.Buffer
			n, err := c.SaveSnapshot(t.Context(), &saved)
			if n == 0 || int64(saved.Len()) != n {
				t.Errorf("%d bytes, %d written", n, saved.Len())
			}
			return err
		},
		"restore": func(c *client.Client) error {
			var saved bytes.Buffer
			if _, err := s.open(filepath.Join(s.dir, "operator")).SaveSnapshot(t.Context(), &saved); err != nil {
				return err
			}
			res, err := c.RestoreSnapshot(t.Context(), &saved)
			if res.GetGeneration() != 2 {
				t.Errorf("restored: %v", res)
			}
			return err
		},
		"restore of what is no snapshot": func(c *client.Client) error {
			if _, err := c.RestoreSnapshot(t.Context(), strings.NewReader("no snapshot")); err == nil {
				t.Error("it was restored")
			}
			return nil
		},
	} {
		c, err := client.New(client.Config{Identity: s.admin, Addresses: []string{dead.Addr().String(), s.members["c1"].api}})
		if err != nil {
			t.Fatal(err)
		}
		if err := call(c); err != nil {
			t.Errorf("%s: %v", what, client.Fault(err))
		}
		c.Close()
	}
}
