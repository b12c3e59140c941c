package config

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Config is one coordinator's configuration.
type Config struct {
	// Name is the member's id in the cluster and in its certificate. It never changes.
	Name string `yaml:"name"`
	// Data is the directory of the log, the snapshots and the certificate. Mode 0700.
	Data string `yaml:"data"`
	// KeyFile holds the sealing keys, mode 0600, outside Data, so that a copy of Data tells no secret.
	// Default: Data with ".keys" appended.
	KeyFile string `yaml:"key_file"`
	// Listen is where the three listeners bind. Defaults 0.0.0.0:7600, :7601 and :7602. Port 0 lets the system
	// choose at first start; the choice is kept in Data.
	Listen Addresses `yaml:"listen"`
	// Advertise is where others reach them. Default: Listen, which then must name an address and not all.
	Advertise Addresses `yaml:"advertise"`
	// Profile is "default" (election after 500 ms without a leader) or "lan" (300 ms).
	Profile string `yaml:"profile"`
	// LeaderWait is how long a request waits for a leader before it fails with no_quorum. Default 5 s.
	LeaderWait time.Duration `yaml:"leader_wait"`
	// StopTimeout is how long requests in work may take when the process is asked to stop. Default 5 s.
	StopTimeout time.Duration `yaml:"stop_timeout"`
	// CertificateTTL is the life of certificates that this member issues. Default 30 days.
	CertificateTTL time.Duration `yaml:"certificate_ttl"`
	Limits         Limits        `yaml:"limits"`
	Log            Log           `yaml:"log"`
	// AddressFile, if set, is written as JSON once the listeners are bound: {"name", "api", "raft", "rack"}.
	AddressFile string `yaml:"address_file,omitempty"`
	// ExitWithStdin ends the process when its standard input ends, so that it does not outlive its parent.
	ExitWithStdin bool `yaml:"exit_with_stdin,omitempty"`
}

// Addresses are host:port of the three listeners.
type Addresses struct {
	API  string `yaml:"api"`  // people, programs, other coordinators
	Raft string `yaml:"raft"` // coordinators only
	Rack string `yaml:"rack"` // agents' streams
}

// Limits bound what the listeners take.
type Limits struct {
	Connections int `yaml:"connections"` // per listener. Default 10,000
	PerAddress  int `yaml:"per_address"` // per remote address and listener. Default 1,000
	Watchers    int `yaml:"watchers"`    // open Watch streams. Default 4,096
}

// Log says how the process logs, on standard error.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error. Default info
	Format string `yaml:"format"` // text or json. Default text
}

// Default is a configuration without name and data.
func Default() Config {
	return Config{
		Listen:      Addresses{API: "0.0.0.0:7600", Raft: "0.0.0.0:7601", Rack: "0.0.0.0:7602"},
		Profile:     "default",
		LeaderWait:  5 * time.Second,
		StopTimeout: 5 * time.Second,
		Limits:      Limits{Connections: 10000, PerAddress: 1000, Watchers: 4096},
		Log:         Log{Level: "info", Format: "text"},
	}
}

// File is the name under which init and join keep the configuration in the data directory.
const File = "coordinator.yaml"

// Save writes the configuration, without what belongs to one run only.
func (c Config) Save(path string) error {
	c.AddressFile, c.ExitWithStdin = "", false
	data, err := yaml.Marshal(c)
	if err != nil {
		return fault.Wrap("write configuration", err)
	}
	return fault.Wrap("write configuration", os.WriteFile(path, data, 0o600))
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

var nameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// Validate fills what follows from other fields and checks everything. The first fault is returned; its Detail
// names the field.
func (c *Config) Validate() error {
	if !nameRE.MatchString(c.Name) {
		return invalid("name", "%q may hold letters, digits, and . _ - after the first, at most 63", c.Name)
	}
	if c.Data == "" {
		return invalid("data", "say in which directory the log lives")
	}
	data, err := filepath.Abs(c.Data)
	if err != nil {
		return invalid("data", "%w", err)
	}
	c.Data = data
	if err := c.validateKeyFile(); err != nil {
		return err
	}
	if err := c.validateAddresses(); err != nil {
		return err
	}
	if c.Profile != "default" && c.Profile != "lan" {
		return invalid("profile", "%q is not default or lan", c.Profile)
	}
	return c.validateBounds()
}

func (c *Config) validateKeyFile() error {
	if c.KeyFile == "" {
		c.KeyFile = c.Data + ".keys"
	}
	path, err := filepath.Abs(c.KeyFile)
	if err != nil {
		return invalid("key_file", "%w", err)
	}
	c.KeyFile = path
	if rel, err := filepath.Rel(c.Data, path); err == nil && filepath.IsLocal(rel) {
		return invalid("key_file", "%s is inside the data directory: a backup of it would hold the keys", path)
	}
	return nil
}

func (c *Config) validateAddresses() error {
	for _, x := range []struct {
		field             string
		listen, advertise *string
	}{
		{"api", &c.Listen.API, &c.Advertise.API}, {"raft", &c.Listen.Raft, &c.Advertise.Raft}, {"rack", &c.Listen.Rack, &c.Advertise.Rack},
	} {
		host, port, err := split("listen."+x.field, *x.listen)
		if err != nil {
			return err
		}
		if *x.advertise == "" {
			ip := net.ParseIP(host)
			if host == "" || ip != nil && ip.IsUnspecified() {
				return invalid("advertise."+x.field, "%s listens on every address: say at which one others reach it", *x.listen)
			}
			continue // from the listener, once its port is known
		}
		if host, adv, err := split("advertise."+x.field, *x.advertise); err != nil {
			return err
		} else if host == "" || adv == 0 && port != 0 {
			return invalid("advertise."+x.field, "%q is not where others reach it", *x.advertise)
		}
	}
	return nil
}

func (c *Config) validateBounds() error {
	for field, d := range map[string]time.Duration{"leader_wait": c.LeaderWait, "stop_timeout": c.StopTimeout} {
		if d < 100*time.Millisecond || d > 5*time.Minute {
			return invalid(field, "%v is not between 100 ms and 5 min", d)
		}
	}
	if c.CertificateTTL != 0 && c.CertificateTTL < time.Minute {
		return invalid("certificate_ttl", "%v is less than a minute", c.CertificateTTL)
	}
	for field, n := range map[string]int{"connections": c.Limits.Connections, "per_address": c.Limits.PerAddress, "watchers": c.Limits.Watchers} {
		if n < 1 || n > 1_000_000 {
			return invalid("limits."+field, "%d is not between 1 and 1,000,000", n)
		}
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
