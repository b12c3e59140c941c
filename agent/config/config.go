package config

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Config is one agent's configuration.
type Config struct {
	// Name and Group are those of the agent's certificate. Default: what the certificate says.
	Name  string `yaml:"name"`
	Group string `yaml:"group"`
	// Data is the directory of the certificate, the journal and the image cache. Mode 0700.
	Data string `yaml:"data"`
	// Drivers are the hardware types offered. Default: redfish and fake-hardware.
	Drivers []string `yaml:"drivers"`
	// Weight is the agent's share of its group's nodes, 1 to 1000. Default 1: placing a node costs as much as the weights add up to.
	Weight uint32 `yaml:"weight"`
	// Coordinators are the rack listeners of the coordinators, host:port. Default: those that joining gave.
	Coordinators []string `yaml:"coordinators"`
	// Workers is how many steps and tasks may run at once. Default 300; 5 % are kept for tasks of the agent's own.
	Workers int `yaml:"workers"`
	// BMCGap is the least time between two turns at one BMC. Default 100 ms.
	BMCGap time.Duration `yaml:"bmc_gap"`

	PowerSync PowerSync `yaml:"power_sync"`

	HTTP    Listener `yaml:"http"`    // boot scripts, kernel, ramdisk, images. Default 0.0.0.0:8080
	Ramdisk Listener `yaml:"ramdisk"` // TLS for ramdisks. Default 0.0.0.0:8443
	DHCP    DHCP     `yaml:"dhcp"`
	TFTP    TFTP     `yaml:"tftp"`
	Boot    Boot     `yaml:"boot"`
	Images  Images   `yaml:"images"`

	// StopTimeout is how long work may take to end when the process is asked to stop. Default 5 s.
	StopTimeout time.Duration `yaml:"stop_timeout"`
	Log         Log           `yaml:"log"`
	// AddressFile, if set, is written as JSON once the listeners are bound: {"name", "http", "ramdisk", "dhcp", "tftp"}.
	AddressFile string `yaml:"address_file"`
	// ExitWithStdin ends the process when its standard input ends, so that it does not outlive its parent.
	ExitWithStdin bool `yaml:"exit_with_stdin"`
}

// Listener is where to bind, and where machines and other agents reach it.
type Listener struct {
	Listen string `yaml:"listen"`
	// Advertise is host:port as machines reach it. Default: Listen, which then must name an address and not all.
	// Port 0 stands for the bound one.
	Advertise string `yaml:"advertise"`
}

// PowerSync says how often the power of nodes is read at which nothing is ordered. It changes no machine's power.
type PowerSync struct {
	Interval time.Duration `yaml:"interval"` // between two readings of a node; 0s: never. Default 120 s
	Recovery time.Duration `yaml:"recovery"` // likewise, of a node whose fault is "power failure". Default 300 s
}

// DHCP answers on the boot network. Off unless Listen is set.
type DHCP struct {
	Listen    string     `yaml:"listen"`     // ":67" or address:port
	Interface string     `yaml:"interface"`  // to bind to; empty: relayed requests only
	Server    netip.Addr `yaml:"server"`     // this agent's address on the boot network. Default: the host of http.advertise
	ReplyPort uint16     `yaml:"reply_port"` // where relays listen. Default 67
	// Proxy leaves addresses to another server and answers boot options only (PXE 2.1, proxyDHCP).
	Proxy bool `yaml:"proxy"`
	// ProxyListen is where PXE firmware asks again for its boot program. Default ":4011" with Proxy, else off.
	ProxyListen string `yaml:"proxy_listen"`

	// Unknown is what unknown machines get: ignore (default); address or halt, see agent/boot, which hold only while no
	// other agent of the group lives.
	Unknown string   `yaml:"unknown"`
	Subnets []Subnet `yaml:"subnets"`
	// RouterAdvertisements answers router solicitations on Interface with an empty advertisement: on a rack without
	// IPv6, iPXE waits 16 s for one at each boot. It needs CAP_NET_RAW. Default: on if Interface is set, with a warning
	// where that right is missing; set to true, a missing right is an error.
	RouterAdvertisements *bool `yaml:"router_advertisements"`
}

// Subnet is what machines on one link are told.
type Subnet struct {
	Prefix netip.Prefix  `yaml:"prefix"`
	Pool   []string      `yaml:"pool"` // "10.0.0.100-10.0.0.199"
	Router netip.Addr    `yaml:"router"`
	DNS    []netip.Addr  `yaml:"dns"`
	Lease  time.Duration `yaml:"lease"`
}

// TFTP serves boot programs. Off unless Listen is set.
type TFTP struct {
	Listen string `yaml:"listen"` // ":69" or address:port
}

// Boot is what machines boot. Without Kernel and Ramdisk only simulated machines can be booted.
type Boot struct {
	Kernel  string `yaml:"kernel"`  // path
	Ramdisk string `yaml:"ramdisk"` // path
	// Programs are the boot programs by their served names (undionly.kpxe, snponly.efi): paths.
	Programs map[string]string `yaml:"programs"`
	// Args are extra kernel arguments.
	Args []string `yaml:"args"`
}

// Images is the cache.
type Images struct {
	Dir      string         `yaml:"dir"`       // Default: images below Data
	MaxBytes int64          `yaml:"max_bytes"` // of the directory. Default 100 GiB
	Allow    []netip.Prefix `yaml:"allow"`     // networks refused otherwise: loopback, link-local
	Deny     []netip.Prefix `yaml:"deny"`      // networks refused besides, such as that of the BMCs
}

// Log says how the process logs, on standard error.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error. Default info
	Format string `yaml:"format"` // text or json. Default text
}

// Default is a configuration without data.
func Default() Config {
	return Config{
		Drivers: []string{"fake-hardware", "redfish"}, Weight: 1, Workers: 300, BMCGap: 100 * time.Millisecond,
		PowerSync: PowerSync{Interval: 120 * time.Second, Recovery: 300 * time.Second},
		HTTP:      Listener{Listen: "0.0.0.0:8080"}, Ramdisk: Listener{Listen: "0.0.0.0:8443"},
		StopTimeout: 5 * time.Second, Images: Images{MaxBytes: 100 << 30}, Log: Log{Level: "info", Format: "text"},
	}
}

// Load reads a file over the defaults. It does not Validate: flags may still change it.
func Load(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fault.New(fault.NotFound, "read configuration", "%w", err)
	}
	cfg, err := Parse(data)
	return cfg, fault.Wrap("read configuration "+path, err)
}

// Parse reads YAML over the defaults. An unknown key, or a second document, is an error.
func Parse(data []byte) (Config, error) {
	cfg := Default()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&cfg); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, fault.New(fault.Invalid, "parse YAML", "%w", err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return Config{}, fault.New(fault.Invalid, "parse YAML", "there is more than one document")
	}
	return cfg, nil
}

var nameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`) // read-only

// Validate fills what follows from other fields and checks everything. The first fault is returned; its Detail
// names the field.
func (c *Config) Validate() error {
	if c.Data == "" {
		return invalid("data", "say in which directory the certificate and the journal live")
	}
	data, err := filepath.Abs(c.Data)
	if err != nil {
		return invalid("data", "%w", err)
	}
	c.Data = data
	if c.Images.Dir == "" {
		c.Images.Dir = filepath.Join(c.Data, "images")
	}
	for field, name := range map[string]string{"name": c.Name, "group": c.Group} {
		if name != "" && !nameRE.MatchString(name) {
			return invalid(field, "%q may hold letters, digits, and . _ - after the first, at most 63", name)
		}
	}
	for _, check := range []func() error{c.validateBounds, c.validateAddresses, c.validateDHCP, c.validateBoot} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) validateBounds() error {
	switch {
	case len(c.Drivers) == 0:
		return invalid("drivers", "name at least one hardware type")
	case c.Weight < 1 || c.Weight > 1000:
		return invalid("weight", "%d is not between 1 and 1000", c.Weight)
	case c.Workers < 2 || c.Workers > 10_000:
		return invalid("workers", "%d is not between 2 and 10,000", c.Workers)
	case c.BMCGap < 0 || c.BMCGap > 10*time.Second:
		return invalid("bmc_gap", "%v is not between 0 and 10 s", c.BMCGap)
	case c.PowerSync.Interval != 0 && (c.PowerSync.Interval < 100*time.Millisecond || c.PowerSync.Interval > 24*time.Hour):
		return invalid("power_sync.interval", "%v is neither 0 nor between 100 ms and 24 h", c.PowerSync.Interval)
	case c.PowerSync.Recovery < 100*time.Millisecond || c.PowerSync.Recovery > 24*time.Hour:
		return invalid("power_sync.recovery", "%v is not between 100 ms and 24 h", c.PowerSync.Recovery)
	case c.StopTimeout < 100*time.Millisecond || c.StopTimeout > 5*time.Minute:
		return invalid("stop_timeout", "%v is not between 100 ms and 5 min", c.StopTimeout)
	case c.Images.MaxBytes < 1<<20:
		return invalid("images.max_bytes", "%d is less than 1 MiB", c.Images.MaxBytes)
	}
	switch c.Log.Level {
	case "debug", "info", "warn", "error":
	default:
		return invalid("log.level", "%q is not debug, info, warn or error", c.Log.Level)
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		return invalid("log.format", "%q is not text or json", c.Log.Format)
	}
	return nil
}

func (c *Config) validateAddresses() error {
	for i, a := range c.Coordinators {
		if host, port, err := split("coordinators", a); err != nil {
			return err
		} else if host == "" || port == 0 {
			return invalid("coordinators", "entry %d, %q, names no host and port", i+1, a)
		}
	}
	for field, l := range map[string]*Listener{"http": &c.HTTP, "ramdisk": &c.Ramdisk} {
		host, port, err := split(field+".listen", l.Listen)
		if err != nil {
			return err
		}
		if l.Advertise == "" {
			if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
				return invalid(field+".advertise", "%s listens on every address: say at which one machines reach it", l.Listen)
			}
			l.Advertise = l.Listen
		}
		host, adv, err := split(field+".advertise", l.Advertise)
		if err != nil {
			return err
		}
		if host == "" || adv == 0 && port != 0 {
			return invalid(field+".advertise", "%q is not where machines reach it", l.Advertise)
		}
	}
	return nil
}

func (c *Config) validateDHCP() error {
	if c.TFTP.Listen != "" {
		if _, _, err := split("tftp.listen", c.TFTP.Listen); err != nil {
			return err
		}
	}
	d := &c.DHCP
	if d.ProxyListen != "" && (!d.Proxy || d.Listen == "") {
		return invalid("dhcp.proxy_listen", "it goes with dhcp.listen and proxy: true")
	}
	if d.Listen == "" {
		return nil
	}
	if _, _, err := split("dhcp.listen", d.Listen); err != nil {
		return err
	}
	if d.RouterAdvertisements != nil && *d.RouterAdvertisements && d.Interface == "" {
		return invalid("dhcp.router_advertisements", "name the interface on which to advertise")
	}
	if d.Proxy && d.ProxyListen == "" {
		d.ProxyListen = ":4011"
	}
	if d.ProxyListen != "" {
		if _, _, err := split("dhcp.proxy_listen", d.ProxyListen); err != nil {
			return err
		}
	}
	if len(d.Subnets) == 0 && !d.Proxy {
		return invalid("dhcp.subnets", "name the subnets to give addresses in, or set proxy")
	}
	if !d.Server.IsValid() {
		host, _, _ := split("http.advertise", c.HTTP.Advertise) // checked before
		addr, err := netip.ParseAddr(host)
		if err != nil {
			return invalid("dhcp.server", "say this agent's address on the boot network; %q is none", host)
		}
		d.Server = addr
	}
	for i, s := range d.Subnets {
		if !s.Prefix.IsValid() || !s.Prefix.Addr().Is4() {
			return invalid("dhcp.subnets", "subnet %d has no IPv4 prefix", i+1)
		}
		for _, r := range s.Pool {
			if _, _, err := ParseRange(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// ParseRange reads "first-last", two IPv4 addresses.
func ParseRange(text string) (first, last netip.Addr, err error) {
	a, b, ok := strings.Cut(text, "-")
	if ok {
		first, err = netip.ParseAddr(strings.TrimSpace(a))
	}
	if ok && err == nil {
		last, err = netip.ParseAddr(strings.TrimSpace(b))
	}
	if !ok || err != nil || !first.Is4() || !last.Is4() || last.Less(first) {
		return first, last, invalid("dhcp.subnets.pool", "%q is not first-last, two IPv4 addresses in order", text)
	}
	return first, last, nil
}

func (c *Config) validateBoot() error {
	if (c.Boot.Kernel == "") != (c.Boot.Ramdisk == "") {
		return invalid("boot", "kernel and ramdisk are named together or not at all")
	}
	return nil
}

func split(field, address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, invalid(field, "%q is not host:port", address)
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, invalid(field, "port %q is not a number below 65536", text)
	}
	return host, port, nil
}

func invalid(field, format string, args ...any) error {
	return fault.New(fault.Invalid, field, format, args...).WithDetail(&fault.FieldDetail{Field: field})
}
