package cmdline

import (
	"strings"
	"testing"

	"github.com/farrier-project/farrier/pkg/fault"
)

const pin = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

const good = "initrd=x farrier.boot=ab12 farrier.secret=cd farrier.agents=https://10.0.0.1:8443/,https://10.0.0.2:8443 farrier.pins=" + pin +
	" BOOTIF=01-52-54-00-AA-00-01 no_timer_check console=ttyS0 farrier.debug"

func TestParse(t *testing.T) {
	p, err := Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	if p.BootID != "ab12" || p.Secret != "cd" || len(p.Agents) != 2 || p.Agents[0] != "https://10.0.0.1:8443" || len(p.Pins) != 1 ||
		p.Pins[0][1] != 0x11 || p.BootIf != "52:54:00:aa:00:01" || !p.Debug || p.IPDone {
		t.Errorf("%+v", p)
	}
	if p, err := Parse(strings.Replace(good, "01-52-54-00-AA-00-01", "52:54:00:aa:00:02", 1) + " farrier.network=none"); err != nil || p.BootIf != "52:54:00:aa:00:02" || !p.IPDone {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestRefused(t *testing.T) {
	for _, change := range [][2]string{
		{"farrier.boot=ab12", ""}, {"farrier.boot=ab12", "farrier.boot=a/b"}, {"farrier.secret=cd", "farrier.secret=geheim"},
		{"https://10.0.0.1:8443/", "http://10.0.0.1:8443"}, {"https://10.0.0.1:8443/", "https://u:p@10.0.0.1"}, {pin, "12"}, {pin, ""},
		{"01-52-54-00-AA-00-01", "01-52"}, {"farrier.agents=", "agents="},
		{"farrier.agents=", "farrier.agents=" + strings.Repeat("https://a,", 17)}, {pin, strings.Repeat(pin+",", 17) + pin},
	} {
		_, err := Parse(strings.Replace(good, change[0], change[1], 1))
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%q for %q: %v", change[1], change[0], err)
		} else if strings.Contains(err.Error(), "geheim") {
			t.Error("the secret is in the error")
		}
	}
	if _, err := Parse(good + strings.Repeat(" x", maxLine)); !fault.Is(err, fault.TooLarge) {
		t.Errorf("long: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(good)
	f.Fuzz(func(t *testing.T, line string) {
		if p, err := Parse(line); err == nil && (len(p.Agents) == 0 || len(p.Pins) == 0 || p.BootID == "") {
			t.Errorf("%q gives %+v", line, p)
		}
	})
}
