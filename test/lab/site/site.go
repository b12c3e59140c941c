package site

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/test/lab/image"
	"github.com/farrier-project/farrier/test/lab/machine"
	"github.com/farrier-project/farrier/test/lab/netns"
	"github.com/farrier-project/farrier/test/lab/redfish"
)

// Config says what to run.
type Config struct {
	Dir          string // everything that is written lies below it; what an earlier run left there must be gone
	Bin          string // directory of farrier-coordinator, farrier-agent and farrier-ramdisk
	Images       string // directory where the demo image is kept; default Dir/images
	Coordinators int    // default 3
	Agents       int    // default 2, negative: none
	Machines     int    // default 4, negative: none, and neither image nor ramdisk is made
	Profile      string // of the coordinators' elections; default "lan"
	Group        string // default "rack1"
	// Machine, if set, changes the machine's configuration before it is made.
	Machine   func(i int, cfg *machine.Config)
	OnMachine func(machine.Event)
	// OnStart is told of each part as it comes up, with the time that it took.
	OnStart func(what string, took time.Duration)
	// AgentSettings and CoordinatorSettings are lines added to each agent's and each coordinator's YAML.
	AgentSettings, CoordinatorSettings string
	// Rack, if set, has everything run on a network of its own with emulated machines, instead of on loopback with
	// simulated ones. Machine and OnMachine are not used then, and machines stay as many as Machines says, default 1.
	Rack *Rack
}

// maxParts bounds each kind of part: addresses are made from small numbers.
const maxParts = 200

// Machine is a software machine and its BMC.
type Machine struct {
	*machine.Machine
	BMC  *redfish.BMC
	Name string
	MAC  string
	IP   netip.Addr
}

// Site is a running Farrier. Its fields do not change after Start, but for Agents by AddAgent.
type Site struct {
	cfg          Config
	Coordinators []*Process
	Agents       []*Process
	Machines     []*Machine
	VMs          []*VM  // instead of Machines, with Config.Rack
	Operator     string // configuration directory for farrier --config
	Client       *client.Client
	Image        image.Image
	ImageURL     string

	imageBase string // URL of the directory of images
	hosts     []*netns.Host

	helper  []machine.Helper
	closers []func()
	once    sync.Once
}

// Start brings everything up. On an error nothing is left running.
func Start(ctx context.Context, cfg Config) (*Site, error) {
	cfg = defaults(cfg)
	if cfg.Coordinators > maxParts || cfg.Agents > maxParts || cfg.Machines > maxParts {
		return nil, fmt.Errorf("at most %d of a kind", maxParts)
	}
	s := &Site{cfg: cfg, Operator: filepath.Join(cfg.Dir, "operator")}
	for _, part := range []struct {
		what  string
		start func(context.Context) error
	}{
		{"image", s.startImage},
		{"ramdisk", s.makeBootFiles},
		{"coordinators", s.startCoordinators},
		{"agents", s.startAgents},
		{"machines", s.startMachines},
	} {
		began := time.Now()
		if err := part.start(ctx); err != nil {
			s.Close()
			return nil, fmt.Errorf("start %s: %w", part.what, err)
		}
		cfg.OnStart(part.what, time.Since(began))
	}
	return s, nil
}

func defaults(cfg Config) Config {
	if cfg.Images == "" {
		cfg.Images = filepath.Join(cfg.Dir, "images")
	}
	if cfg.Coordinators == 0 {
		cfg.Coordinators = 3
	}
	if cfg.Agents == 0 {
		cfg.Agents = 2
	}
	if cfg.Machines == 0 {
		if cfg.Machines = 4; cfg.Rack != nil {
			cfg.Machines = 1
		}
	}
	if cfg.Group == "" {
		cfg.Group = "rack1"
	}
	if cfg.Profile == "" {
		cfg.Profile = "lan"
	}
	if cfg.OnStart == nil {
		cfg.OnStart = func(string, time.Duration) {}
	}
	return cfg
}

// Close stops everything, machines first, and waits.
func (s *Site) Close() {
	s.once.Do(func() {
		for _, m := range s.Machines {
			_ = m.BMC.Close()
			_ = m.Machine.Close()
		}
		for _, m := range s.VMs {
			_ = m.BMC.Close()
			_ = m.Machine.Close()
		}
		var wg sync.WaitGroup
		for _, p := range append(append([]*Process(nil), s.Agents...), s.Coordinators...) {
			wg.Go(p.Stop)
		}
		wg.Wait()
		for _, h := range s.hosts {
			_ = h.Close()
		}
		for i := len(s.closers) - 1; i >= 0; i-- {
			s.closers[i]()
		}
	})
}

// startImage builds the image and serves it over HTTP.
func (s *Site) startImage(context.Context) error {
	if err := os.MkdirAll(s.cfg.Images, 0o755); err != nil {
		return err
	}
	if err := s.serveImages(); err != nil {
		return err
	}
	if s.cfg.Rack != nil || s.cfg.Machines < 0 {
		return nil // OS makes one for each run; without machines there is none
	}
	img, err := image.Build(s.cfg.Images)
	s.Image, s.ImageURL = img, s.imageBase+filepath.Base(img.Path)
	return err
}

// serveImages serves the directory of images over HTTP.
func (s *Site) serveImages() error {
	ln, err := net.Listen("tcp", s.host()+":0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{name}", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.Join(s.cfg.Images, filepath.Base(r.PathValue("name"))))
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(ln)
	}()
	s.closers = append(s.closers, func() {
		_ = srv.Close()
		<-done
	})
	s.imageBase = "http://" + ln.Addr().String() + "/"
	return nil
}

// host is the address of everything but the agents and the simulated machines.
func (s *Site) host() string {
	if s.cfg.Rack != nil {
		return rackHost
	}
	return "127.0.0.1"
}

func (s *Site) program(name string) string { return filepath.Join(s.cfg.Bin, name) }

func (s *Site) kernel() string {
	if s.cfg.Rack != nil {
		return s.cfg.Rack.Kernel
	}
	return filepath.Join(s.cfg.Dir, "boot", "kernel")
}
func (s *Site) ramdisk() string  { return filepath.Join(s.cfg.Dir, "boot", "ramdisk.cpio.gz") }
func (s *Site) programs() string { return filepath.Join(s.cfg.Dir, "boot", "programs") }

// makeBootFiles makes the real ramdisk, and stand-ins for what software machines do not execute. Emulated machines
// execute everything: theirs are real.
func (s *Site) makeBootFiles(ctx context.Context) error {
	if err := os.MkdirAll(s.programs(), 0o755); err != nil {
		return err
	}
	if s.cfg.Rack != nil {
		return s.makeRamdisk(ctx, s.cfg.Rack.Modules)
	}
	ramdisk := func() error { return s.makeRamdisk(ctx, "none") }
	if s.cfg.Machines < 0 {
		ramdisk = func() error {
			return os.WriteFile(s.ramdisk(), []byte("FARRIER SIMULATED RAMDISK: there are no machines\n"), 0o644)
		}
	}
	return errors.Join(
		os.WriteFile(s.kernel(), []byte("FARRIER SIMULATED KERNEL: software machines do not execute it\n"), 0o644),
		os.WriteFile(filepath.Join(s.programs(), "undionly.kpxe"), []byte("FARRIER SIMULATED BOOT PROGRAM: software machines do not execute it\n"), 0o644),
		ramdisk(),
	)
}

func (s *Site) makeRamdisk(ctx context.Context, modules string) error {
	program := s.program("farrier-ramdisk")
	_, err := run(ctx, filepath.Join(s.cfg.Dir, "ramdisk.log"), program, "image", "--init", program, "--modules", modules, "--out", s.ramdisk())
	return err
}

// machineIP is 127.77.0.11 and up: addresses of loopback that no other part uses.
func machineIP(i int) netip.Addr { return netip.AddrFrom4([4]byte{127, 77, 0, byte(11 + i)}) }

func (s *Site) startMachines(context.Context) error {
	if s.cfg.Rack != nil {
		return s.startVMs()
	}
	for i := range s.cfg.Machines {
		mac := net.HardwareAddr{0x52, 0x54, 0x00, 0x77, 0x00, byte(11 + i)}
		cfg := machine.Config{
			Dir: filepath.Join(s.cfg.Dir, "machines", fmt.Sprintf("m%d", i+1)), Name: fmt.Sprintf("m%d", i+1), IP: machineIP(i), MAC: mac,
			UUID: fmt.Sprintf("77000000-0000-4000-8000-0000000000%02x", 11+i), Serial: fmt.Sprintf("SIM%04d", i+1),
			Helpers: s.helper, OnEvent: s.cfg.OnMachine,
		}
		if s.cfg.Machine != nil {
			s.cfg.Machine(i, &cfg)
		}
		m, err := machine.New(cfg)
		if err != nil {
			return err
		}
		b, err := redfish.Start(redfish.Config{Machine: m, User: "admin", Password: fmt.Sprintf("password-of-%s", cfg.Name)})
		if err != nil {
			_ = m.Close()
			return err
		}
		s.Machines = append(s.Machines, &Machine{Machine: m, BMC: b, Name: cfg.Name, MAC: mac.String(), IP: cfg.IP})
	}
	return nil
}

// OnClose has fn called by Close, after the processes have ended and before what was registered earlier.
func (s *Site) OnClose(fn func()) { s.closers = append(s.closers, fn) }
