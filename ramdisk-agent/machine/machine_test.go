package machine

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/farrier-project/farrier/pkg/fault"
)

func TestParse(t *testing.T) {
	m, err := Parse([]byte(`{"system":{"uuid":"u"},"nics":[{"mac":"52-54-00-AA-00-01"}],
		"disks":[{"path":"d.img"},{"path":"/x/e.img","discard":"lies","sector":4096,"write_log":"w"},{"path":"f","discard":false}]}`), "/m")
	if err != nil {
		t.Fatal(err)
	}
	if m.NICs[0].MAC != "52:54:00:aa:00:01" || m.NICs[0].Name != "eth0" || m.BootMode != "bios" || m.CPUs != 1 || m.MemoryMiB != 1024 {
		t.Errorf("defaults: %+v", m)
	}
	d := m.Disks
	if d[0].Path != "/m/d.img" || d[0].Name != "sda" || d[0].Discard != DiscardWorks || d[0].Sector != 512 {
		t.Errorf("first disk: %+v", d[0])
	}
	if d[1].Path != "/x/e.img" || d[1].Discard != DiscardLies || d[1].WriteLog != "/m/w" || d[2].Discard != DiscardRefuse {
		t.Errorf("other disks: %+v", d[1:])
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Parse(b, "/elsewhere"); err != nil || again.Disks[1] != d[1] || again.Disks[2] != d[2] {
		t.Errorf("written and read again: %+v, %v", again, err)
	}
}

func TestRefused(t *testing.T) {
	const nic = `"nics":[{"mac":"52:54:00:00:00:01"}]`
	for name, text := range map[string]string{
		"not JSON":      `{`,
		"unknown field": `{"system":{"uuid":"u"},` + nic + `,"disk":[]}`,
		"no uuid":       `{"system":{},` + nic + `}`,
		"no nic":        `{"system":{"uuid":"u"},"nics":[]}`,
		"bad mac":       `{"system":{"uuid":"u"},"nics":[{"mac":"5254"}]}`,
		"boot mode":     `{"system":{"uuid":"u"},"boot_mode":"efi",` + nic + `}`,
		"source":        `{"system":{"uuid":"u"},"source_ip":"localhost",` + nic + `}`,
		"discard":       `{"system":{"uuid":"u"},` + nic + `,"disks":[{"path":"d","discard":"maybe"}]}`,
		"sector":        `{"system":{"uuid":"u"},` + nic + `,"disks":[{"path":"d","sector":520}]}`,
		"odd size":      `{"system":{"uuid":"u"},` + nic + `,"disks":[{"path":"d","size_bytes":1000}]}`,
		"no path":       `{"system":{"uuid":"u"},` + nic + `,"disks":[{}]}`,
	} {
		if _, err := Parse([]byte(text), "/"); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Parse(make([]byte, maxFile+1), "/"); !fault.Is(err, fault.TooLarge) {
		t.Errorf("too large: %v", err)
	}
	if _, err := Read(filepath.Join(t.TempDir(), "absent")); !fault.Is(err, fault.NotFound) {
		t.Errorf("absent: %v", err)
	}
}
