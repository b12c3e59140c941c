package docs

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	agentconfig "github.com/farrier-project/farrier/agent/config"
)

// unit is what is read of a systemd unit.
type unit struct {
	exec         []string
	user         string
	writable     []string // ReadWritePaths
	capabilities []string
}

// unitKeys are the keys that may be in a unit. Those with a value must have it: what the text says of them depends on it.
var unitKeys = map[string]string{ // read-only
	"Unit.Description": "", "Unit.After": "network-online.target", "Unit.Wants": "network-online.target",
	"Service.ExecStart": "", "Service.User": "", "Service.AmbientCapabilities": "", "Service.Restart": "always", "Service.RestartSec": "1",
	"Service.LimitNOFILE": "", "Service.ProtectSystem": "strict", "Service.ReadWritePaths": "", "Service.NoNewPrivileges": "yes",
	"Install.WantedBy": "multi-user.target",
}

func parseUnit(text string) (unit, error) {
	var u unit
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if name, ok := strings.CutPrefix(line, "["); ok {
			section = strings.TrimSuffix(name, "]")
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		want, known := unitKeys[section+"."+key]
		switch {
		case !ok || !known:
			return u, fmt.Errorf("unknown line %q in section %q", line, section)
		case want != "" && value != want:
			return u, fmt.Errorf("%s is %q instead of %q", key, value, want)
		}
		switch key {
		case "ExecStart":
			u.exec = strings.Fields(value)
		case "User":
			u.user = value
		case "ReadWritePaths":
			u.writable = strings.Fields(value)
		case "AmbientCapabilities":
			u.capabilities = strings.Fields(value)
		}
	}
	if len(u.exec) < 2 || u.user == "" {
		return u, fmt.Errorf("it names no command or no user")
	}
	return u, nil
}

// below tells whether a path is one of the directories or in one.
func below(path string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return path == d || strings.HasPrefix(path, strings.TrimSuffix(d, "/")+"/") })
}

// flagValue is the value of a flag among arguments.
func flagValue(args []string, flag string) string {
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, flag+"="); ok {
			return v
		}
		if a == flag && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

// check tells what the unit's daemon would miss on the host: systemd gives it the user, the file system and the capabilities
// that the unit says, and nothing more.
func (h *host) check(u unit) error {
	var data string
	var needs []string // paths that it writes
	switch filepath.Base(u.exec[0]) {
	case "farrier-coordinator":
		data = flagValue(u.exec, "--data")
		needs = []string{data, data + ".keys"}
	case "farrier-agent":
		cfg, err := agentconfig.Parse([]byte(h.files[flagValue(u.exec, "--config")]))
		if err == nil {
			err = cfg.Validate()
		}
		if err != nil {
			return err
		}
		data = cfg.Data
		needs = []string{data, cfg.Images.Dir}
		want := map[string]bool{"CAP_NET_BIND_SERVICE": cfg.DHCP.Listen == ":67" || cfg.TFTP.Listen == ":69", "CAP_NET_RAW": cfg.DHCP.Interface != ""} // for router advertisements, which are on with it
		for c, needed := range want {
			if needed && !slices.Contains(u.capabilities, c) {
				return fmt.Errorf("the configuration needs %s, which the unit does not give", c)
			}
		}
		if !below(cfg.Boot.Kernel, h.made...) || !below(cfg.Boot.Ramdisk, h.made...) {
			return fmt.Errorf("no command made %s and %s", cfg.Boot.Kernel, cfg.Boot.Ramdisk)
		}
	default:
		return fmt.Errorf("%s is no daemon of ours", u.exec[0])
	}
	if !h.users[u.user] {
		return fmt.Errorf("no command made the user %s", u.user)
	}
	for _, path := range needs {
		if !below(path, u.writable...) {
			return fmt.Errorf("ProtectSystem=strict makes %s read-only: it is not below ReadWritePaths %v", path, u.writable)
		}
		if owner := h.owner(path); owner != u.user {
			return fmt.Errorf("%s belongs to %s, and the daemon runs as %s", path, owner, u.user)
		}
	}
	return nil
}

// TestUnitChecks: what a daemon would miss under systemd is found without systemd.
func TestUnitChecks(t *testing.T) {
	const text = "[Unit]\nDescription=x\n[Service]\nExecStart=/usr/local/bin/farrier-coordinator run --data /var/lib/farrier/coordinator\nUser=farrier\nProtectSystem=strict\nReadWritePaths=/var/lib/farrier\n"
	ready := func() *host {
		return &host{users: map[string]bool{"farrier": true}, owners: map[string]string{"/var/lib/farrier": "farrier"}}
	}
	for _, c := range []struct {
		name   string
		change func(h *host) (unit string)
		want   string
	}{
		{"as it should be", func(*host) string { return text }, ""},
		{"init ran as root", func(h *host) string {
			h.owners["/var/lib/farrier/coordinator"] = "root"
			return text
		}, "belongs to root"},
		{"the directory was not given away", func(h *host) string {
			clear(h.owners)
			return text
		}, "belongs to root"},
		{"nobody made the user", func(h *host) string {
			clear(h.users)
			return text
		}, "no command made the user"},
		{"the data is read-only", func(*host) string {
			return strings.ReplaceAll(text, "Paths=/var/lib/farrier", "Paths=/var/lib/farrier/coordinator")
		}, "read-only"},
		{"a key that systemd does not have", func(*host) string { return text + "ReadWriteDirs=/\n" }, "unknown line"},
		{"no user", func(*host) string { return strings.ReplaceAll(text, "User=farrier\n", "") }, "no user"},
	} {
		h := ready()
		u, err := parseUnit(c.change(h))
		if err == nil {
			err = h.check(u)
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v instead of %q", c.name, err, c.want)
		}
	}
}
