package site

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/test/lab/machine"
)

// process prepares a daemon: its directory, its configuration file and its log.
func (s *Site) process(name, program, yaml string) (p *Process, config string, err error) {
	dir := filepath.Join(s.cfg.Dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", err
	}
	config = filepath.Join(dir, "config.yaml")
	p = &Process{
		Name: name, LogPath: filepath.Join(s.cfg.Dir, name+".log"), program: s.program(program),
		args: []string{"run", "--config", config}, address: filepath.Join(dir, "address.json"),
	}
	yaml += fmt.Sprintf("name: %s\ndata: %s\naddress_file: %s\nexit_with_stdin: true\n", name, filepath.Join(dir, "data"), p.address)
	return p, config, os.WriteFile(config, []byte(yaml), 0o600)
}

// startCoordinators makes a cluster and joins the others to it by tokens.
func (s *Site) startCoordinators(ctx context.Context) error {
	yaml := fmt.Sprintf("listen: {api: %[1]s:0, raft: %[1]s:0, rack: %[1]s:0}\nprofile: %[3]s\n%[2]s", s.host(), s.cfg.CoordinatorSettings, s.cfg.Profile)
	for i := range s.cfg.Coordinators {
		name := fmt.Sprintf("c%d", i+1)
		p, config, err := s.process(name, "farrier-coordinator", yaml)
		if err != nil {
			return err
		}
		if i == 0 {
			_, err = run(ctx, p.LogPath, p.program, "init", "--config", config, "--operator-dir", s.Operator)
		} else {
			err = s.join(ctx, p, config, "coordinator", "")
		}
		if err != nil {
			return err
		}
		s.Coordinators = append(s.Coordinators, p)
		if err := p.Start(ctx); err != nil {
			return err
		}
		if i == 0 {
			if s.Client, err = client.Open(s.Operator); err != nil {
				return err
			}
			s.closers = append(s.closers, s.Client.Close)
		}
	}
	return s.waitVoters(ctx)
}

// waitVoters waits until every coordinator has a vote, and tells the client of all of them.
func (s *Site) waitVoters(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for {
		res, err := s.Client.Cluster.GetCluster(ctx, &farrierv1.GetClusterRequest{})
		if err != nil {
			return err
		}
		var addresses []string
		for _, m := range res.GetMembers() {
			if m.GetVoter() && m.GetApiAddress() != "" { // a new cluster records its first member a moment later
				addresses = append(addresses, m.GetApiAddress())
			}
		}
		if len(addresses) == s.cfg.Coordinators {
			return s.reopen(addresses)
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("%d of %d coordinators have a vote: %w", len(addresses), s.cfg.Coordinators, err)
		}
	}
}

// reopen writes the operator's list of servers and makes the client anew.
func (s *Site) reopen(addresses []string) error {
	err := os.WriteFile(filepath.Join(s.Operator, client.ServersFile), []byte(strings.Join(addresses, "\n")+"\n"), 0o600)
	if err != nil {
		return err
	}
	c, err := client.Open(s.Operator)
	if err != nil {
		return err
	}
	s.Client = c
	s.closers = append(s.closers, c.Close)
	return nil
}

func (s *Site) token(ctx context.Context, role, name, group string) (string, error) {
	res, err := s.Client.Cluster.CreateJoinToken(ctx, &farrierv1.CreateJoinTokenRequest{Role: role, Name: name, Group: group})
	if err != nil {
		return "", fmt.Errorf("make join token for %s: %w", name, err)
	}
	return res.GetToken(), nil
}

// joinTries is how often a daemon may try to join: on a busy computer the leader may change just then.
const joinTries = 3

// join makes a token and has the daemon join with it.
func (s *Site) join(ctx context.Context, p *Process, config, role, group string) error {
	for try := 1; ; try++ {
		token, err := s.token(ctx, role, p.Name, group)
		if err == nil {
			_, err = run(ctx, p.LogPath, p.program, "join", "--config", config, "--token", token)
		}
		if err == nil || try == joinTries {
			return err
		}
		if err := sleep(ctx, time.Duration(try)*500*time.Millisecond); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// agentIP is 127.77.255.1 and up.
func agentIP(i int) netip.Addr { return netip.AddrFrom4([4]byte{127, 77, 255, byte(1 + i)}) }

// agentPorts are chosen once: an agent that is started again must be found where it was.
type agentPorts struct{ http, ramdisk, dhcp, tftp int }

func choosePorts(ip netip.Addr) (p agentPorts, err error) {
	for _, to := range []*int{&p.http, &p.ramdisk} {
		ln, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
		if err != nil {
			return p, err
		}
		*to = ln.Addr().(*net.TCPAddr).Port
		defer ln.Close() // after both are chosen: they must differ
	}
	for _, to := range []*int{&p.dhcp, &p.tftp} {
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
		if err != nil {
			return p, err
		}
		*to = conn.LocalAddr().(*net.UDPAddr).Port
		defer conn.Close()
	}
	return p, nil
}

// agentPlace is where an agent listens, and how it is started there.
type agentPlace struct {
	yaml   string
	helper machine.Helper
	start  func(*exec.Cmd) error
}

func (s *Site) agentPlace(i int) (agentPlace, error) {
	if s.cfg.Rack != nil {
		return s.rackPlace(i)
	}
	ip := agentIP(i)
	ports, err := choosePorts(ip)
	return agentPlace{yaml: s.agentYAML(ip, ports), helper: machine.Helper{DHCP: netip.AddrPortFrom(ip, uint16(ports.dhcp)), TFTP: uint16(ports.tftp)}}, err
}

// startAgents joins the agents, one address each, and waits for their sessions.
func (s *Site) startAgents(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make(chan error, max(s.cfg.Agents, 0))
	for range s.cfg.Agents {
		start, err := s.prepareAgent("")
		if err != nil {
			return err
		}
		wg.Go(func() { errs <- start(ctx) })
	}
	wg.Wait()
	for range s.cfg.Agents {
		if err := <-errs; err != nil {
			return err
		}
	}
	return s.WaitAgents(ctx, s.cfg.Agents)
}

// prepareAgent makes the next agent's place and configuration. start joins and starts it.
func (s *Site) prepareAgent(settings string) (start func(context.Context) error, err error) {
	i := len(s.Agents)
	place, err := s.agentPlace(i)
	if err != nil {
		return nil, err
	}
	p, config, err := s.process(fmt.Sprintf("%s-%c", s.cfg.Group, 'a'+i), "farrier-agent", place.yaml+settings)
	if err != nil {
		return nil, err
	}
	p.start = place.start
	s.Agents = append(s.Agents, p)
	s.helper = append(s.helper, place.helper)
	return func(ctx context.Context) error {
		if err := s.join(ctx, p, config, "agent", s.cfg.Group); err != nil {
			return err
		}
		return p.Start(ctx)
	}, nil
}

// AddAgent joins one more agent, with lines added to its YAML, and waits for its session. It is the last of Agents.
// Machines that are there already do not ask it for DHCP. It is not safe for concurrent use.
func (s *Site) AddAgent(ctx context.Context, settings string) error {
	start, err := s.prepareAgent(settings)
	if err != nil {
		return err
	}
	if err := start(ctx); err != nil {
		return err
	}
	return s.WaitAgents(ctx, len(s.Agents))
}

// Helper is where the i-th agent answers DHCP and TFTP.
func (s *Site) Helper(i int) machine.Helper { return s.helper[i] }

func (s *Site) agentYAML(ip netip.Addr, p agentPorts) string {
	return fmt.Sprintf(`bmc_gap: 10ms
http: {listen: "%[1]s:%[2]d"}
ramdisk: {listen: "%[1]s:%[3]d"}
dhcp:
  listen: "%[1]s:%[4]d"
  server: %[1]s
  subnets:
    - {prefix: 127.77.0.0/16, pool: ["127.77.200.1-127.77.200.250"]}
tftp: {listen: "%[1]s:%[5]d"}
boot:
  kernel: %[6]s
  ramdisk: %[7]s
  programs: {undionly.kpxe: %[8]s}
images:
  allow: [127.0.0.0/8]
%[9]s`, ip, p.http, p.ramdisk, p.dhcp, p.tftp, s.kernel(), s.ramdisk(), filepath.Join(s.programs(), "undionly.kpxe"), s.cfg.AgentSettings)
}

// WaitAgents waits until n agents have a session.
func (s *Site) WaitAgents(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for {
		res, err := s.Client.Agents.ListAgents(ctx, &farrierv1.ListAgentsRequest{})
		if err != nil {
			return err
		}
		live := 0
		for _, a := range res.GetAgents() {
			if a.GetState() == "live" {
				live++
			}
		}
		if live >= n {
			return nil
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("%d of %d agents have a session: %w", live, n, err)
		}
	}
}
