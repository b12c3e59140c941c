package boot

import (
	"strings"
	"testing"

	"github.com/farrier-project/farrier/pkg/fault"
)

var testMAC = [6]byte{0x52, 0x54, 0, 0x12, 0x34, 0x56}

const testID = "0123456789abcdef0123456789abcdef"

func TestDecide(t *testing.T) {
	const base = "http://10.77.0.1:8080"
	script := base + "/boot/" + testID + "/ipxe?mac=52-54-00-12-34-56"
	open := Assignment{Known: true, PXE: true, BootID: testID}
	claimed := Assignment{Known: true, PXE: true, BootID: testID, Claimed: true}
	tests := []struct {
		name   string
		policy Policy
		client Client
		arch   Arch
		a      Assignment
		serve  Serve
		file   string
	}{
		{"bios rom", Ignore, PXE, 0, open, Program, "undionly.kpxe"},
		{"x64 uefi", Ignore, PXE, 7, open, Program, "snponly.efi"},
		{"x64 uefi, other number", Ignore, PXE, 9, open, Program, "snponly.efi"},
		{"arm64 uefi", Ignore, PXE, 11, open, Program, "snponly-arm64.efi"},
		{"http boot", Ignore, HTTP, 16, open, Program, base + "/programs/snponly.efi"},
		{"http boot arm64", Ignore, HTTP, 19, open, Program, base + "/programs/snponly-arm64.efi"},
		{"itanium", Ignore, PXE, 2, open, AddressOnly, ""},
		{"ipxe bios", Ignore, IPXE, 0, open, Script, script},
		{"ipxe uefi", Ignore, IPXE, 7, open, Script, script},
		{"ipxe of an architecture without a program", Ignore, IPXE, 2, open, Script, script},
		{"ramdisk or system", Ignore, Plain, 0, open, AddressOnly, ""},
		{"used attempt, rom", Ignore, PXE, 0, claimed, Program, "undionly.kpxe"},
		{"used attempt, ipxe", Ignore, IPXE, 0, claimed, Script, script},
		{"no attempt, rom", Ignore, PXE, 0, Assignment{Known: true, PXE: true}, AddressOnly, ""},
		{"no attempt, ipxe", Halt, IPXE, 0, Assignment{Known: true, PXE: true}, AddressOnly, ""},
		{"no attempt, http", Halt, HTTP, 16, Assignment{Known: true, PXE: true}, AddressOnly, ""},
		{"port not enabled", Ignore, PXE, 0, Assignment{Known: true, BootID: testID}, AddressOnly, ""},
		{"unknown, ignore, plain", Ignore, Plain, 0, Assignment{}, Nothing, ""},
		{"unknown, ignore, rom", Ignore, PXE, 7, Assignment{}, Nothing, ""},
		{"unknown, ignore, ipxe", Ignore, IPXE, 7, Assignment{}, Nothing, ""},
		{"unknown, address, plain", Address, Plain, 0, Assignment{}, AddressOnly, ""},
		{"unknown, address, rom", Address, PXE, 0, Assignment{}, AddressOnly, ""},
		{"unknown, address, ipxe", Address, IPXE, 0, Assignment{}, AddressOnly, ""},
		{"unknown, halt, plain", Halt, Plain, 0, Assignment{}, AddressOnly, ""},
		{"unknown, halt, rom", Halt, PXE, 0, Assignment{}, Program, "undionly.kpxe"},
		{"unknown, halt, http", Halt, HTTP, 16, Assignment{}, Program, base + "/programs/snponly.efi"},
		{"unknown, halt, ipxe", Halt, IPXE, 7, Assignment{}, Script, base + "/boot/unknown/ipxe?mac=52-54-00-12-34-56"},
	}
	for _, tt := range tests {
		got := Decide(Rack{Unknown: tt.policy, HTTP: base}, Request{MAC: testMAC, Client: tt.client, Arch: tt.arch}, tt.a)
		if got.Serve != tt.serve || got.File != tt.file {
			t.Errorf("%s: %s %q, want %s %q", tt.name, got.Serve, got.File, tt.serve, tt.file)
		}
		if got.Why == "" {
			t.Errorf("%s: no reason", tt.name)
		}
		if got.URL != strings.HasPrefix(got.File, "http://") {
			t.Errorf("%s: URL is %v for %q", tt.name, got.URL, got.File)
		}
	}
}

// TestDecideNeverBootsWithoutAnAttempt covers every pair of client and architecture.
func TestDecideNeverBootsWithoutAnAttempt(t *testing.T) {
	for _, p := range []Policy{Ignore, Address, Halt} {
		for c := Plain; c <= IPXE; c++ {
			for a := range Arch(64) {
				got := Decide(Rack{Unknown: p}, Request{Client: c, Arch: a}, Assignment{Known: true, PXE: true})
				if got.Serve != AddressOnly || got.File != "" {
					t.Errorf("policy %s, client %s, architecture %d: %s %q", p, c, a, got.Serve, got.File)
				}
			}
		}
	}
}

func TestScript(t *testing.T) {
	extra, err := ParseArgs([]string{"console=tty0", "quiet"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := Launch{
		HTTP: "http://10.77.0.1:8080", BootID: testID, Secret: "aabb", MAC: testMAC,
		Agents: []Agent{{"https://10.77.0.1:8443", "11ff"}, {"https://10.77.0.2:8443", "22ff"}}, Extra: extra,
	}.Script()
	if err != nil {
		t.Fatal(err)
	}
	want := "kernel --name kernel http://10.77.0.1:8080/boot/" + testID + "/kernel initrd=ramdisk farrier.boot=" + testID +
		" farrier.secret=aabb farrier.agents=https://10.77.0.1:8443,https://10.77.0.2:8443 farrier.pins=11ff,22ff" +
		" BOOTIF=01-52-54-00-12-34-56 no_timer_check console=ttyS0 console=tty0 quiet || goto retry"
	var kernel string
	for _, line := range strings.Split(got, "\n") {
		if strings.HasPrefix(line, "kernel ") {
			kernel = line
		}
	}
	if kernel != want {
		t.Errorf("kernel line\n%s\nwant\n%s", kernel, want)
	}
	if !strings.HasPrefix(got, "#!ipxe\n") || !strings.Contains(got, "\ninitrd --name ramdisk http://10.77.0.1:8080/boot/"+testID+"/ramdisk || goto retry\nboot\n") {
		t.Errorf("script:\n%s", got)
	}
}

func TestScriptRefuses(t *testing.T) {
	good := Launch{HTTP: "http://10.77.0.1:8080", BootID: testID, Secret: "aabb", MAC: testMAC, Agents: []Agent{{"https://10.77.0.1:8443", "11"}}}
	if _, err := good.Script(); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		edit func(*Launch)
		kind fault.Kind
	}{
		{"boot id with a line break", func(l *Launch) { l.BootID = "aa\nshell" }, fault.Invalid},
		{"no secret", func(l *Launch) { l.Secret = "" }, fault.Invalid},
		{"base with a path", func(l *Launch) { l.HTTP = "http://10.77.0.1/x" }, fault.Invalid},
		{"base with a command", func(l *Launch) { l.HTTP = "http://h || shell" }, fault.Invalid},
		{"base of another scheme", func(l *Launch) { l.HTTP = "file://h" }, fault.Invalid},
		{"agent by plain http", func(l *Launch) { l.Agents = []Agent{{"http://10.77.0.1:8443", "11"}} }, fault.Invalid},
		{"agent with a comma", func(l *Launch) { l.Agents = []Agent{{"https://a,https://b", "11"}} }, fault.Invalid},
		{"agent with a space", func(l *Launch) { l.Agents = []Agent{{"https://a/ b", "11"}} }, fault.Invalid},
		{"pin that is not hex", func(l *Launch) { l.Agents[0].Pin = "zz" }, fault.Invalid},
		{"too long a command line", func(l *Launch) {
			for range 3 {
				l.Extra = append(l.Extra, Arg{key: "k", value: strings.Repeat("v", 900)})
			}
		}, fault.TooLarge},
	}
	for _, tt := range tests {
		l := good
		l.Agents = append([]Agent(nil), good.Agents...)
		tt.edit(&l)
		if _, err := l.Script(); !fault.Is(err, tt.kind) {
			t.Errorf("%s: %v, want kind %s", tt.name, err, tt.kind)
		}
	}
}

func TestParseArg(t *testing.T) {
	for _, text := range []string{"quiet", "a=b", "console=ttyS0,115200n8", "x=", "i915.modeset=0", "url=https://h:1/p?q", "nfs=[::1]:/x", "a==b"} {
		a, err := ParseArg(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if a.String() != text {
			t.Errorf("%q became %q", text, a)
		}
	}
	for _, text := range []string{"", "=x", "a b", "a=b c", "a=b\nshell", "a=${net0/mac}", `a="b"`, "a='b'", "a=`b`", "a=b;c", "a&&b", "a||b", "a=b|c",
		"a=b#c", `a=b\c`, "ä=1", "a=ä", "a=\x00", "a=\t", "a={b}", strings.Repeat("a", 1025)} {
		if _, err := ParseArg(text); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v, want invalid", text, err)
		}
	}
}

func FuzzParseArg(f *testing.F) {
	f.Add("console=ttyS0")
	f.Add("a=b\nshell")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseArg(text)
		if err != nil {
			return
		}
		if a.String() != text || strings.ContainsAny(a.String(), " \n\r\t$\"'`\\;&|") {
			t.Errorf("%q became %q", text, a)
		}
	})
}

func TestFixedScripts(t *testing.T) {
	wait, err := WaitScript("http://10.77.0.1:8080", testID, testMAC)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{wait, UnknownScript(testMAC)} {
		if !strings.HasPrefix(s, "#!ipxe\n") || strings.Contains(s, "kernel ") || strings.Contains(s, "exit") {
			t.Errorf("script must wait and start nothing:\n%s", s)
		}
	}
	if !strings.Contains(UnknownScript(testMAC), "52-54-00-12-34-56") {
		t.Error("the unknown machine's script does not name it")
	}
}

func TestPolicyText(t *testing.T) {
	for _, p := range []Policy{Ignore, Address, Halt} {
		if got, ok := ParsePolicy(p.String()); !ok || got != p {
			t.Errorf("%s reads as %s, %v", p, got, ok)
		}
	}
	if _, ok := ParsePolicy("discover"); ok {
		t.Error("unknown policy accepted")
	}
}
