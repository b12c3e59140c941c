package config

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/farrier-project/farrier/pkg/fault"
)

const whole = `
name: rack1-a
group: rack1
data: /var/lib/farrier-agent
coordinators: ["10.0.0.1:7602", "10.0.0.2:7602"]
http: {listen: "10.77.0.1:8080"}
ramdisk: {listen: "0.0.0.0:8443", advertise: "10.77.0.1:8443"}
dhcp:
  listen: ":67"
  interface: eth1
  subnets:
    - prefix: 10.77.0.0/24
      pool: ["10.77.0.100-10.77.0.199"]
      router: 10.77.0.254
      lease: 10m
tftp: {listen: ":69"}
boot: {kernel: /srv/vmlinuz, ramdisk: /srv/ramdisk, programs: {snponly.efi: /srv/snponly.efi}}
images: {allow: ["127.0.0.0/8"]}
`

func TestWholeConfiguration(t *testing.T) {
	c, err := Parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if c.HTTP.Advertise != "10.77.0.1:8080" || c.DHCP.Server.String() != "10.77.0.1" || c.Images.Dir != "/var/lib/farrier-agent/images" || c.Workers != 300 ||
		c.PowerSync != (PowerSync{Interval: 120 * time.Second, Recovery: 300 * time.Second}) {
		t.Errorf("defaults: %+v", c)
	}
}

func TestFaultsNameTheirField(t *testing.T) {
	for _, tc := range []struct{ replace, with, field string }{
		{"data: /var/lib/farrier-agent", "data: ''", "data"},
		{"name: rack1-a", "name: 'rack 1'", "name"},
		{"10.0.0.2:7602", "10.0.0.2", "coordinators"},
		{"http: {listen: \"10.77.0.1:8080\"}", "http: {listen: \"0.0.0.0:8080\"}", "http.advertise"},
		{"10.77.0.100-10.77.0.199", "10.77.0.199-10.77.0.100", "dhcp.subnets.pool"},
		{"  subnets:\n    - prefix: 10.77.0.0/24", "  subnets:\n    - prefix: fd00::/64", "dhcp.subnets"},
		{"  interface: eth1", "  proxy_listen: \":4011\"", "dhcp.proxy_listen"},
		{"  listen: \":67\"", "  proxy: true\n  proxy_listen: \":4011\"", "dhcp.proxy_listen"}, // it brought the agent down
		{"  listen: \":67\"", "  listen: \":67\"\n  proxy: true\n  proxy_listen: nowhere", "dhcp.proxy_listen"},
		{"ramdisk: /srv/ramdisk, ", "", "boot"},
		{"tftp: {listen: \":69\"}", "tftp: {listen: \":x\"}", "tftp.listen"},
		{"group: rack1", "weight: 0", "weight"},
		{"group: rack1", "workers: 1", "workers"},
		{"group: rack1", "power_sync: {interval: 1ms}", "power_sync.interval"},
		{"group: rack1", "power_sync: {recovery: 0s}", "power_sync.recovery"},
		{"group: rack1", "log: {level: loud, format: text}", "log.level"},
	} {
		if !strings.Contains(whole, tc.replace) {
			t.Fatalf("%q is not in the configuration", tc.replace)
		}
		c, err := Parse([]byte(strings.Replace(whole, tc.replace, tc.with, 1)))
		if err == nil {
			err = c.Validate()
		}
		var f *fault.Error
		if !errors.As(err, &f) {
			t.Errorf("%s: no error", tc.field)
			continue
		}
		if d, ok := f.Detail.(*fault.FieldDetail); !ok || d.Field != tc.field {
			t.Errorf("%s: error is %v with detail %+v", tc.field, err, f.Detail)
		}
	}
}

func TestPowerSyncIsSwitchedOff(t *testing.T) {
	c, err := Parse([]byte(whole + "power_sync: {interval: 0s}\n"))
	if err == nil {
		err = c.Validate()
	}
	if err != nil || c.PowerSync.Interval != 0 || c.PowerSync.Recovery != 300*time.Second {
		t.Errorf("%+v, %v", c.PowerSync, err)
	}
}

func TestUnknownKeysAndSecondDocuments(t *testing.T) {
	for _, text := range []string{"dataa: x", "data: x\n---\ndata: y", ":"} {
		if _, err := Parse([]byte(text)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v, want invalid", text, err)
		}
	}
}
