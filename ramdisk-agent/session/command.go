package session

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/ramdisk-agent/cmdline"
	"github.com/farrier-project/farrier/ramdisk-agent/disk"
	"github.com/farrier-project/farrier/ramdisk-agent/inspect"
	"github.com/farrier-project/farrier/ramdisk-agent/machine"
	"github.com/farrier-project/farrier/ramdisk-agent/pid1"
	"github.com/farrier-project/farrier/ramdisk-agent/work"
)

// Exit codes, and the last line on standard output.
const (
	ExitPowerOff = 0
	ExitFailed   = 1
	ExitUsage    = 2
	ExitReboot   = 3
	ExitStdin    = 4

	MarkPowerOff = "farrier-ramdisk: power off"
	MarkReboot   = "farrier-ramdisk: reboot"
)

// Command is the program but for process 1: a service of a live image, or a software machine. It answers the exit code.
func Command(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet("farrier-ramdisk", flag.ContinueOnError)
	f.SetOutput(stderr)
	line := f.String("cmdline", "", "kernel command line, or @FILE; default @/proc/cmdline")
	file := f.String("machine", "", "play the software machine that this JSON file describes")
	here := f.Bool("this-machine", false, "work on the disks of the machine that this runs on, and switch it off in the end")
	exit := f.Bool("exit-with-stdin", false, "end when standard input ends")
	verbose := f.Bool("verbose", false, "log more")
	f.Usage = func() {
		fmt.Fprintln(stderr, "usage: farrier-ramdisk [flags]\n       farrier-ramdisk image [flags]\n       farrier-ramdisk version")
		f.PrintDefaults()
	}
	if len(args) == 1 && (args[0] == "version" || args[0] == "--version") {
		fmt.Fprintln(stdout, "farrier-ramdisk", Version)
		return 0
	}
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0 // it has printed the usage
	} else if err != nil {
		return ExitUsage
	}
	if f.NArg() > 0 {
		fmt.Fprintf(stderr, "farrier-ramdisk: there is no subcommand %q\n", f.Arg(0))
		f.Usage()
		return ExitUsage
	}
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	if (*file == "") != *here {
		fmt.Fprintln(stderr, "farrier-ramdisk: give either --machine FILE or --this-machine")
		return ExitUsage
	}
	cfg, err := configure(*line, *file, log)
	if err != nil {
		return complain(stderr, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if *exit {
		go func() { // ends with the process
			_, _ = io.Copy(io.Discard, stdin) // whatever it says, it ended
			cancel(errStdin)
		}()
	}
	end, err := Run(ctx, cfg)
	if context.Cause(ctx) == errStdin {
		fmt.Fprintln(stderr, "farrier-ramdisk:", errStdin)
		return ExitStdin
	}
	code := leave(end, err, stdout, stderr)
	if *here && err == nil {
		return complain(stderr, pid1.Leave(end == work.Reboot)) // returns only if it failed
	}
	return code
}

var errStdin = fault.New(fault.Aborted, "", "standard input ended") // read-only

func leave(end work.End, err error, stdout, stderr io.Writer) int {
	switch {
	case err != nil:
		return complain(stderr, err)
	case end == work.Reboot:
		fmt.Fprintln(stdout, MarkReboot)
		return ExitReboot
	default:
		fmt.Fprintln(stdout, MarkPowerOff)
		return ExitPowerOff
	}
}

func complain(stderr io.Writer, err error) int {
	fmt.Fprintln(stderr, "farrier-ramdisk:", err)
	if f, ok := err.(*fault.Error); ok && f.Help != "" {
		fmt.Fprintln(stderr, "  "+f.Help)
	}
	if fault.Is(err, fault.Invalid) {
		return ExitUsage
	}
	return ExitFailed
}

func configure(line, file string, log *slog.Logger) (Config, error) {
	if line == "" {
		line = "@/proc/cmdline"
	}
	if path, ok := strings.CutPrefix(line, "@"); ok {
		b, err := os.ReadFile(path)
		if err != nil {
			return Config{}, fault.New(fault.Invalid, "read command line", "%w", err)
		}
		line = string(b)
	}
	params, err := cmdline.Parse(line)
	if err != nil {
		return Config{}, err
	}
	if file == "" {
		return hardware(params, log), nil
	}
	m, err := machine.Read(file)
	if err != nil {
		return Config{}, err
	}
	host, err := disk.NewSoftware(m.Disks)
	if err != nil {
		return Config{}, err
	}
	cfg := Config{Params: params, Host: host, Simulated: true, Log: log,
		Inventory: func() (*inspect.Inventory, error) { return inspect.Software(m, host) }}
	if m.SourceIP != "" {
		cfg.Source = &net.TCPAddr{IP: net.ParseIP(m.SourceIP)}
	}
	return cfg, nil
}

func hardware(params cmdline.Params, log *slog.Logger) Config {
	host := disk.NewLinux("/")
	return Config{Params: params, Host: host, Log: log,
		Inventory: func() (*inspect.Inventory, error) { return inspect.Linux("/", host) }}
}

// Stage2 is the program as the child of process 1: it makes the machine ready, then works. It answers the exit code,
// by which process 1 leaves the machine.
func Stage2(ctx context.Context, stdout, stderr io.Writer) int {
	log := slog.New(slog.NewTextHandler(stderr, nil))
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return complain(stderr, err)
	}
	params, err := cmdline.Parse(string(b))
	if err != nil {
		return complain(stderr, err)
	}
	if err := pid1.Prepare(ctx, params, log); err != nil {
		return complain(stderr, err)
	}
	cfg := hardware(params, log)
	cfg.Settle = func() { pid1.Settle(linkWait) }
	end, err := Run(ctx, cfg)
	return leave(end, err, stdout, stderr)
}

// linkWait is how long an inventory waits for NICs that are up to find a carrier, counted from the order for it.
const linkWait = 3 * time.Second
