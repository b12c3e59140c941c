package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/farrier-project/farrier/pkg/identity"
)

// etcdCluster is three etcd members on loopback, with their defaults but for addresses and mutual TLS, which Farrier has too:
// without it their calls would be cheaper than ours.
type etcdCluster struct {
	procs     []*exec.Cmd
	endpoints []string
	program   string // the anchor program
	identity  string // directory of the certificate that members and clients share; "" without TLS
}

func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

func startEtcd(dir string, secure bool) (*etcdCluster, error) {
	if _, err := exec.LookPath("etcd"); err != nil {
		return nil, fmt.Errorf("%w: run `make bench-setup`", err)
	}
	dir, err := os.MkdirTemp(dir, "etcd-") // a second cluster must not find the first one's members
	if err != nil {
		return nil, err
	}
	c, scheme := &etcdCluster{program: filepath.Join(dir, "anchor")}, "http"
	if secure {
		c.identity, scheme = filepath.Join(dir, "identity"), "https"
		if err := newIdentity(c.identity); err != nil {
			return nil, err
		}
	}
	build := exec.Command("go", "build", "-o", c.program, ".")
	build.Dir = "test/bench/anchor"
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build anchor: %w: %s", err, out)
	}
	ports, err := freePorts(6)
	if err != nil {
		return nil, err
	}
	var cluster []string
	for i := range 3 {
		cluster = append(cluster, fmt.Sprintf("e%d=%s://127.0.0.1:%d", i, scheme, ports[3+i]))
	}
	for i := range 3 {
		url, peer := fmt.Sprintf("%s://127.0.0.1:%d", scheme, ports[i]), fmt.Sprintf("%s://127.0.0.1:%d", scheme, ports[3+i])
		cmd := exec.Command("etcd", "--name", fmt.Sprintf("e%d", i), "--data-dir", filepath.Join(dir, fmt.Sprint(i)),
			"--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", strings.Join(cluster, ","), "--initial-cluster-state", "new", "--log-level", "error")
		if secure {
			key, cert, ca := filepath.Join(c.identity, "key.pem"), filepath.Join(c.identity, "cert.pem"), filepath.Join(c.identity, "ca.pem")
			cmd.Args = append(cmd.Args, "--key-file", key, "--cert-file", cert, "--trusted-ca-file", ca, "--client-cert-auth",
				"--peer-key-file", key, "--peer-cert-file", cert, "--peer-trusted-ca-file", ca, "--peer-client-cert-auth")
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			c.stop()
			return nil, err
		}
		c.procs = append(c.procs, cmd)
		c.endpoints = append(c.endpoints, url)
	}
	return c, nil
}

// newIdentity makes a CA and a certificate of it in a directory, as Farrier's own are made.
func newIdentity(dir string) error {
	ca, err := identity.NewCA("etcd")
	if err != nil {
		return err
	}
	store, err := identity.NewStore(dir)
	if err != nil {
		return err
	}
	return store.Certify(ca, identity.Peer{Role: identity.RoleCoordinator, Name: "etcd", Cluster: "etcd"}, []string{"127.0.0.1"}, time.Hour)
}

func (c *etcdCluster) pids() (pids []int) {
	for _, p := range c.procs {
		pids = append(pids, p.Process.Pid)
	}
	return pids
}

func (c *etcdCluster) stop() {
	for _, p := range c.procs {
		_ = p.Process.Kill()
		_ = p.Wait()
	}
}

// anchorPatience is how long an anchor may take beyond its measurement: to connect, and to end.
const anchorPatience = 30 * time.Second

type pairResult struct {
	PerSecond float64 `json:"per_second"`
	Pairs     float64 `json:"pairs"`
	P50       float64 `json:"p50_us"`
	P99       float64 `json:"p99_us"`
	CPU       float64 `json:"-"` // microseconds per pair, servers and client
}

func (c *etcdCluster) lockPairs(ctx context.Context, workers int, seconds float64) (pairResult, error) {
	before, err := cpu(c.pids()...)
	if err != nil {
		return pairResult{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second))+anchorPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program, "-identity", c.identity, "-endpoints", strings.Join(c.endpoints, ","), "-workers", strconv.Itoa(workers), "-seconds", fmt.Sprint(seconds))
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOGC=%d", generatorGC))
	out, err := cmd.Output() // its client warns of each call that the end of the time cuts off
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return pairResult{}, fmt.Errorf("anchor: %w", err)
	}
	var r pairResult
	if err := json.Unmarshal(out, &r); err != nil {
		return pairResult{}, err
	}
	after, err := cpu(c.pids()...)
	client := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	r.CPU = float64((after - before + client).Microseconds()) / r.Pairs
	return r, err
}

// postgres is one PostgreSQL server with its defaults, on a socket in its own directory.
type postgres struct {
	dir  string
	bin  string
	cred *syscall.Credential
	proc *exec.Cmd
}

func startPostgres(dir string) (*postgres, error) {
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench")
	if err != nil || len(bins) == 0 {
		return nil, errors.New("pgbench is not installed: run `make bench-setup`")
	}
	p := &postgres{dir: dir, bin: filepath.Dir(bins[len(bins)-1])}
	if os.Getuid() == 0 { // PostgreSQL refuses to run as root
		p.cred = &syscall.Credential{Uid: 65534, Gid: 65534}
		if err := os.Chown(dir, 65534, 65534); err != nil {
			return nil, err
		}
	}
	if out, err := p.command("initdb", "-D", dir+"/data", "-U", "bench", "-A", "trust", "-E", "UTF8", "--no-instructions").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	p.proc = p.command("postgres", "-D", dir+"/data", "-k", dir, "-c", "listen_addresses=")
	p.proc.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := p.proc.Start(); err != nil {
		return nil, err
	}
	script := "CREATE TABLE node (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), body text NOT NULL)"
	deadline := time.Now().Add(20 * time.Second)
	for {
		out, err := p.command("psql", "-h", dir, "-U", "bench", "-d", "postgres", "-c", script).CombinedOutput()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			p.stop()
			return nil, fmt.Errorf("psql: %w: %s", err, out)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return p, os.WriteFile(dir+"/insert.sql", []byte("INSERT INTO node (body) VALUES (repeat('x', 1500));\n"), 0o644)
}

func (p *postgres) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred}
	return cmd
}

// inserts is how many rows of 1.5 KiB clients commit in a second.
func (p *postgres) inserts(clients int, seconds int) (float64, error) {
	out, err := p.command("pgbench", "-h", p.dir, "-U", "bench", "-n", "-f", p.dir+"/insert.sql", "-c", strconv.Itoa(clients), "-j", "2", "-T", strconv.Itoa(seconds), "postgres").CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("pgbench: %w: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(line, "tps = "); ok {
			return strconv.ParseFloat(strings.Fields(rest)[0], 64)
		}
	}
	return 0, fmt.Errorf("pgbench printed no tps: %s", out)
}

func (p *postgres) stop() {
	_ = p.proc.Process.Signal(syscall.SIGQUIT) // immediate shutdown
	_ = p.proc.Wait()
}
