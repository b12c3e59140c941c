package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/farrier-project/farrier/pkg/fault"
)

func valid(t *testing.T) Config {
	t.Helper()
	c := Default()
	c.Name, c.Data = "c1", filepath.Join(t.TempDir(), "c1")
	c.Listen = Addresses{API: "127.0.0.1:0", Raft: "127.0.0.1:0", Rack: "127.0.0.1:0"}
	return c
}

func TestValidateFillsTheKeyFile(t *testing.T) {
	c := valid(t)
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if want := c.Data + ".keys"; c.KeyFile != want {
		t.Errorf("key file %q, want %q", c.KeyFile, want)
	}
}

func TestValidateNamesTheField(t *testing.T) {
	for _, tt := range []struct {
		field  string
		change func(*Config)
	}{
		{"name", func(c *Config) { c.Name = "" }},
		{"name", func(c *Config) { c.Name = "a/b" }},
		{"data", func(c *Config) { c.Data = "" }},
		{"key_file", func(c *Config) { c.KeyFile = filepath.Join(c.Data, "keys") }},
		{"key_file", func(c *Config) { c.KeyFile = c.Data }},
		{"listen.api", func(c *Config) { c.Listen.API = "7600" }},
		{"listen.raft", func(c *Config) { c.Listen.Raft = "127.0.0.1:x" }},
		{"listen.rack", func(c *Config) { c.Listen.Rack = "127.0.0.1:70000" }},
		{"advertise.api", func(c *Config) { c.Listen.API = "0.0.0.0:7600" }},
		{"advertise.api", func(c *Config) { c.Listen.API = ":7600" }},
		{"advertise.rack", func(c *Config) { c.Listen.Rack, c.Advertise.Rack = "0.0.0.0:7602", ":7602" }},
		{"advertise.raft", func(c *Config) { c.Listen.Raft, c.Advertise.Raft = "0.0.0.0:7601", "10.0.0.1:0" }},
		{"profile", func(c *Config) { c.Profile = "wan" }},
		{"leader_wait", func(c *Config) { c.LeaderWait = 0 }},
		{"stop_timeout", func(c *Config) { c.StopTimeout = time.Hour }},
		{"certificate_ttl", func(c *Config) { c.CertificateTTL = time.Second }},
		{"limits.connections", func(c *Config) { c.Limits.Connections = 0 }},
		{"limits.per_address", func(c *Config) { c.Limits.PerAddress = -1 }},
		{"log.level", func(c *Config) { c.Log.Level = "loud" }},
		{"log.format", func(c *Config) { c.Log.Format = "xml" }},
	} {
		c := valid(t)
		tt.change(&c)
		err := c.Validate()
		var e *fault.Error
		if !errors.As(err, &e) || e.Kind != fault.Invalid {
			t.Errorf("%s: got %v, want an invalid fault", tt.field, err)
			continue
		}
		if d, ok := e.Detail.(*fault.FieldDetail); !ok || d.Field != tt.field {
			t.Errorf("fault names %+v, want %s", e.Detail, tt.field)
		}
	}
}

func TestParse(t *testing.T) {
	c, err := Parse([]byte("name: c1\ndata: /srv/c1\nlisten: {api: 10.0.0.1:7600}\nleader_wait: 2s\nlimits: {watchers: 7}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if c.LeaderWait != 2*time.Second || c.Limits.Watchers != 7 || c.Limits.Connections != 10000 || c.Listen.Raft != "0.0.0.0:7601" {
		t.Errorf("values over defaults: %+v", c)
	}
	for _, bad := range []string{"nmae: c1\n", "listen: {apo: x}\n", "name: [", "name: a\n---\nname: b\n", "leader_wait: soon\n"} {
		if _, err := Parse([]byte(bad)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: got %v, want an invalid fault", bad, err)
		}
	}
	if _, err := Parse(nil); err != nil {
		t.Errorf("an empty file has only defaults: %v", err)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if _, err := Load(path); !fault.Is(err, fault.NotFound) {
		t.Errorf("a missing file: got %v", err)
	}
	if err := os.WriteFile(path, []byte("nope: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("the error names the file: %v", err)
	}
}

func TestSaveAndLoad(t *testing.T) {
	c := valid(t)
	c.AddressFile, c.ExitWithStdin, c.LeaderWait = "/nowhere", true, 3*time.Second
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), File)
	if err := c.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	c.AddressFile, c.ExitWithStdin = "", false
	if got != c {
		t.Errorf("loaded %+v, want %+v", got, c)
	}
}
