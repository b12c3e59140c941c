package peer

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
	"github.com/farrier-project/farrier/test/bench/usage"
)

// Etcd is three etcd members on loopback, with their defaults but for addresses and mutual TLS, which Farrier has too:
// without it their calls would be cheaper than ours.
type Etcd struct {
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

// StartEtcd starts a cluster with its files under dir, with mutual TLS if secure. Its clients have the GOGC of ours.
func StartEtcd(dir string, secure bool) (*Etcd, error) {
	if _, err := exec.LookPath("etcd"); err != nil {
		return nil, fmt.Errorf("%w: run `make bench-setup`", err)
	}
	dir, err := os.MkdirTemp(dir, "etcd-") // a second cluster must not find the first one's members
	if err != nil {
		return nil, err
	}
	c, scheme := &Etcd{program: filepath.Join(dir, "anchor")}, "http"
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
			c.Stop()
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

func (c *Etcd) PIDs() (pids []int) {
	for _, p := range c.procs {
		pids = append(pids, p.Process.Pid)
	}
	return pids
}

func (c *Etcd) Stop() {
	for _, p := range c.procs {
		_ = p.Process.Kill()
		_ = p.Wait()
	}
}

// anchorPatience is how long an anchor may take beyond its measurement: to connect, and to end.
const anchorPatience = 30 * time.Second

func (c *Etcd) LockPairs(ctx context.Context, workers int, seconds float64) (Pairs, error) {
	before, err := usage.CPU(c.PIDs()...)
	if err != nil {
		return Pairs{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second))+anchorPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program, "-identity", c.identity, "-endpoints", strings.Join(c.endpoints, ","), "-workers", strconv.Itoa(workers), "-seconds", fmt.Sprint(seconds))
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOGC=%d", GC))
	out, err := cmd.Output() // its client warns of each call that the end of the time cuts off
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return Pairs{}, fmt.Errorf("anchor: %w", err)
	}
	var r Pairs
	if err := json.Unmarshal(out, &r); err != nil {
		return Pairs{}, err
	}
	after, err := usage.CPU(c.PIDs()...)
	client := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	r.CPU = float64((after - before + client).Microseconds()) / r.Count
	return r, err
}
