package peer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Postgres is one PostgreSQL server with its defaults, on a socket in its own directory.
type Postgres struct {
	dir  string
	bin  string
	cred *syscall.Credential
	proc *exec.Cmd
}

// StartPostgres starts a server with its files in dir.
func StartPostgres(dir string) (*Postgres, error) {
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench")
	if err != nil || len(bins) == 0 {
		return nil, errors.New("pgbench is not installed: run `make bench-setup`")
	}
	p := &Postgres{dir: dir, bin: filepath.Dir(bins[len(bins)-1])}
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
			p.Stop()
			return nil, fmt.Errorf("psql: %w: %s", err, out)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return p, os.WriteFile(dir+"/insert.sql", []byte("INSERT INTO node (body) VALUES (repeat('x', 1500));\n"), 0o644)
}

func (p *Postgres) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred}
	return cmd
}

// Inserts is how many rows of 1.5 KiB clients commit in a second.
func (p *Postgres) Inserts(clients int, seconds int) (float64, error) {
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

func (p *Postgres) Stop() {
	_ = p.proc.Process.Signal(syscall.SIGQUIT) // immediate shutdown
	_ = p.proc.Wait()
}
