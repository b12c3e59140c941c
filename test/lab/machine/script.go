package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	maxScriptSteps = 100000
	maxScript      = 1 << 20
	maxKernel      = 64 << 20
	maxRamdisk     = 512 << 20
)

// ipxe runs the part of iPXE's script language that boot servers use: labels, goto, set, inc, iseq, echo, sleep, chain,
// kernel, initrd, imgfree, boot, reboot, exit, and the || and && between commands.
type ipxe struct {
	m       *Machine
	client  *http.Client
	vars    map[string]int
	cmdline string
	files   map[string][]byte // "kernel", "initrd"
}

func (m *Machine) httpClient() *http.Client {
	d := &net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: m.cfg.IP.AsSlice()}}
	return &http.Client{Transport: &http.Transport{DialContext: d.DialContext, ResponseHeaderTimeout: 10 * time.Second}, Timeout: time.Minute}
}

func (s *ipxe) fetch(ctx context.Context, url string, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "iPXE/1.0.0 (simulated)")
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("GET %s: over %d bytes", url, limit)
	}
	return b, err
}

// run interprets the script; boot is called at its boot command.
func (s *ipxe) run(ctx context.Context, text string, boot func() outcome) (outcome, error) {
	lines := strings.Split(text, "\n")
	if strings.TrimSpace(lines[0]) != "#!ipxe" {
		return 0, errors.New("the script does not begin with #!ipxe")
	}
	labels := map[string]int{}
	for i, l := range lines {
		if name, ok := strings.CutPrefix(strings.TrimSpace(l), ":"); ok {
			labels[name] = i
		}
	}
	s.vars = map[string]int{}
	at := 1
	for steps := 0; at < len(lines); steps++ {
		if steps > maxScriptSteps {
			return 0, errors.New("the script does not end")
		}
		line := strings.TrimSpace(lines[at])
		at++
		if line == "" || line[0] == '#' || line[0] == ':' {
			continue
		}
		v, err := s.line(ctx, line)
		switch {
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case v.jump != "":
			to, ok := labels[v.jump]
			if !ok {
				return 0, fmt.Errorf("the script has no label %q", v.jump)
			}
			at = to
		case v.boot:
			return boot(), nil
		case v.reboot:
			return reboot, nil
		case v.exit:
			return 0, errors.New("the script left iPXE")
		case v.chain != "":
			return s.run(ctx, v.chain, boot)
		case err != nil:
			return 0, fmt.Errorf("script line %q: %w", line, err)
		}
	}
	return 0, errors.New("the script ended without a boot")
}

type verdict struct {
	jump, chain        string
	boot, reboot, exit bool
}

// line runs "a && b || c" from left to right, as iPXE does: each operator looks at the status so far.
func (s *ipxe) line(ctx context.Context, line string) (v verdict, err error) {
	words := strings.Fields(s.expand(line))
	run, start := true, 0
	for i := 0; i <= len(words); i++ {
		if i < len(words) && words[i] != "||" && words[i] != "&&" {
			continue
		}
		if run && i > start {
			if v, err = s.command(ctx, words[start], words[start+1:i]); v != (verdict{}) {
				return v, nil
			}
		} else if run {
			err = nil // "cmd ||" forgives
		}
		if i < len(words) {
			run = (words[i] == "||") == (err != nil)
			if words[i] == "||" && i == len(words)-1 {
				return v, nil
			}
		}
		start = i + 1
	}
	return v, err
}

func (s *ipxe) expand(line string) string {
	for name, value := range s.vars {
		line = strings.ReplaceAll(line, "${"+name+"}", strconv.Itoa(value))
	}
	return line
}

var errFalse = errors.New("not equal")

func (s *ipxe) command(ctx context.Context, name string, args []string) (verdict, error) {
	switch name {
	case "goto":
		if len(args) == 1 {
			return verdict{jump: args[0]}, nil
		}
	case "set":
		if len(args) == 2 {
			n, err := strconv.Atoi(args[1])
			s.vars[strings.SplitN(args[0], ":", 2)[0]] = n
			return verdict{}, err
		}
	case "inc":
		if len(args) == 1 {
			s.vars[args[0]]++
			return verdict{}, nil
		}
	case "iseq":
		if len(args) == 2 && args[0] == args[1] {
			return verdict{}, nil
		}
		return verdict{}, errFalse
	case "echo", "imgfree":
		return verdict{}, nil
	case "sleep":
		n, err := strconv.Atoi(strings.Join(args, ""))
		if err != nil {
			return verdict{}, err
		}
		return verdict{}, pause(ctx, time.Duration(n)*time.Second)
	case "kernel", "initrd":
		return verdict{}, s.load(ctx, name, args)
	case "chain": // only "chain --replace --autofree URL", and only to a script
		if len(args) != 3 || args[0] != "--replace" || args[1] != "--autofree" {
			break
		}
		text, err := s.fetch(ctx, args[2], maxScript)
		return verdict{chain: string(text)}, err
	case "exit":
		return verdict{exit: true}, nil
	case "boot":
		if s.files["kernel"] == nil {
			return verdict{}, errors.New("no kernel is loaded")
		}
		return verdict{boot: true}, nil
	case "reboot":
		return verdict{reboot: true}, nil
	}
	return verdict{}, fmt.Errorf("unknown or malformed command %q", name)
}

// load fetches "--name n URL args...".
func (s *ipxe) load(ctx context.Context, what string, args []string) error {
	if len(args) > 2 && args[0] == "--name" {
		args = args[2:]
	}
	if len(args) == 0 {
		return errors.New("no URL")
	}
	limit := int64(maxKernel)
	if what == "initrd" {
		limit = maxRamdisk
	}
	b, err := s.fetch(ctx, args[0], limit)
	if err != nil {
		return err
	}
	s.files[what] = b
	if what == "kernel" {
		s.cmdline = strings.Join(args[1:], " ")
	}
	s.m.tell(what, fmt.Sprintf("%d bytes", len(b)))
	return nil
}
