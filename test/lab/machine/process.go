package machine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	ramdisk "github.com/farrier-project/farrier/ramdisk-agent/machine"
)

// softWait is how long what runs may take to stop when it is asked to.
const softWait = 5 * time.Second

// maxConsole bounds the console log; what comes later is dropped.
const maxConsole = 16 << 20

// startRamdisk is what executing the kernel would do: /init of the ramdisk runs, with this command line, on this
// machine. It returns when that process has ended, killed if the power went.
func (m *Machine) startRamdisk(ctx context.Context, s *ipxe, soft <-chan struct{}) outcome {
	program := filepath.Join(m.cfg.Dir, "init")
	if err := m.unpack(program, s.files["initrd"]); err != nil {
		m.tell("dead", "kernel panic: "+err.Error())
		return dead
	}
	if err := m.describe(); err != nil {
		m.tell("dead", err.Error())
		return dead
	}
	s.files = nil // the memory is the machine's now
	console, err := openConsole(m.ConsolePath())
	if err != nil {
		m.tell("dead", err.Error())
		return dead
	}
	defer console.Close()
	fmt.Fprintf(console, "--- boot with %s\n", redact(s.cmdline))

	cmd, cord, err := m.launch(program, s.cmdline, console)
	if err != nil {
		m.tell("dead", "cannot run the ramdisk: "+err.Error())
		return dead
	}
	defer cord.Close()
	m.running(cmd.Process)
	m.tell("ramdisk", fmt.Sprintf("farrier-ramdisk runs as process %d", cmd.Process.Pid))
	defer m.running(nil)
	return m.wait(ctx, cmd, soft)
}

// launch starts the process; cord is the write end of its standard input, the power cord. It retries ETXTBSY: a fork
// elsewhere in this process may hold the file that was just written open for a moment (golang.org/issue/22315).
func (m *Machine) launch(program, cmdline string, log io.Writer) (cmd *exec.Cmd, cord io.Closer, err error) {
	for try := range 20 {
		cmd = exec.Command(program, "--cmdline", cmdline, "--machine", m.machineFile(), "--exit-with-stdin")
		cmd.Dir, cmd.Stdout, cmd.Stderr = m.cfg.Dir, log, log
		cmd.Env = []string{"PATH=/usr/bin:/bin", "GOTRACEBACK=all"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.WaitDelay = time.Second
		if cord, err = cmd.StdinPipe(); err != nil {
			return nil, nil, err
		}
		if err = cmd.Start(); !errors.Is(err, syscall.ETXTBSY) {
			break
		}
		time.Sleep(time.Duration(try+1) * time.Millisecond)
	}
	return cmd, cord, err
}

func (m *Machine) wait(ctx context.Context, cmd *exec.Cmd, soft <-chan struct{}) outcome {
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	for {
		select {
		case <-ctx.Done():
			kill()
			<-ended
			return dead
		case <-soft:
			_ = cmd.Process.Signal(syscall.SIGTERM)
			t := time.AfterFunc(softWait, kill)
			<-ended
			t.Stop()
			return powerOff
		case err := <-ended:
			return m.ended(ctx, err, cmd.ProcessState.ExitCode())
		}
	}
}

// ended reads the exit code, as ramdisk-agent's documentation gives them.
func (m *Machine) ended(ctx context.Context, err error, code int) outcome {
	switch code {
	case 0:
		return powerOff
	case 3:
		return reboot
	}
	if ctx.Err() == nil {
		m.tell("dead", fmt.Sprintf("the ramdisk ended: %v; see %s", err, m.ConsolePath()))
	}
	return dead
}

func (m *Machine) running(p *os.Process) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.process = p
	if p != nil {
		m.count.NetBoots++
		m.state = "ramdisk"
		m.wake()
	}
}

func (m *Machine) machineFile() string { return filepath.Join(m.cfg.Dir, "machine.json") }

// unpack takes /init out of the ramdisk. The same ramdisk, by its digest, is not unpacked again.
func (m *Machine) unpack(program string, ramdisk []byte) error {
	sum := sha256.Sum256(ramdisk)
	if _, err := os.Stat(program); err == nil && sum == m.unpacked {
		return nil
	}
	init, err := findInit(ramdisk)
	if err != nil {
		return err
	}
	if err := os.WriteFile(program+".new", init, 0o755); err != nil {
		return err
	}
	if err := os.Rename(program+".new", program); err != nil {
		return err
	}
	m.unpacked = sum
	return nil
}

// describe writes what the program will find: a file as ramdisk-agent/machine says.
func (m *Machine) describe() error {
	disk := m.cfg.Disk
	disk.Path, disk.SizeBytes, disk.Serial, disk.Vendor, disk.Model = m.DiskPath(), m.cfg.DiskBytes, m.cfg.DiskSerial, manufacturer, diskModel
	b, err := json.MarshalIndent(ramdisk.Machine{
		System:   ramdisk.System{UUID: m.cfg.UUID, Serial: m.cfg.Serial, Manufacturer: manufacturer, Product: model, BIOSVersion: "lab 1"},
		BootMode: "bios", CPUs: cpus, MemoryMiB: memoryBytes >> 20, SourceIP: m.cfg.IP.String(),
		NICs:  []ramdisk.NIC{{Name: "eth0", MAC: m.cfg.MAC.String(), IP: m.cfg.IP.String()}},
		Disks: append([]ramdisk.Disk{disk}, m.cfg.MoreDisks...),
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(m.machineFile(), b, 0o644)
}

// console is a log file with a bound. It is safe for concurrent use.
type console struct {
	mu   sync.Mutex // guards the fields below
	file *os.File
	left int64
}

func openConsole(path string) (*console, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open console log: %w", err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open console log: %w", err)
	}
	return &console{file: f, left: maxConsole - size}, nil
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if int64(len(p)) > c.left {
		return len(p), nil
	}
	c.left -= int64(len(p))
	return c.file.Write(p)
}

func (c *console) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.file.Close()
}

// redact keeps the boot secret out of the log.
func redact(cmdline string) string {
	words := bytes.Fields([]byte(cmdline))
	for i, w := range words {
		if bytes.HasPrefix(w, []byte("farrier.secret=")) {
			words[i] = []byte("farrier.secret=***")
		}
	}
	return string(bytes.Join(words, []byte(" ")))
}
