package bootenv

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/farrier-project/farrier/agent/boot"
	"github.com/farrier-project/farrier/pkg/fault"
)

func mac(n byte) MAC { return MAC{0x52, 0x54, 0, 0, 0, n} }

func addr(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 0, n}) }

func machine(node string, epoch uint64, n byte, boot string) Machine {
	m := Machine{Node: node, Epoch: epoch, Ports: []Port{{MAC: mac(n), IP: addr(n), PXE: true}}}
	if boot != "" {
		m.Boot = &Attempt{ID: boot, Secret: "s", Expires: time.Minute}
	}
	return m
}

func put(t *testing.T, tab *Table, m Machine) {
	t.Helper()
	if err := tab.Put(m); err != nil {
		t.Fatal(err)
	}
}

func standing(tab *Table, id string, now time.Duration) Standing {
	_, s := tab.ByBoot(id, now)
	return s
}

func TestBootAttemptsLife(t *testing.T) {
	tab := New()
	put(t, tab, machine("a", 1, 1, "b1"))
	steps := []struct {
		name string
		do   func()
		now  time.Duration
		want map[string]Standing
	}{
		{"open", func() {}, 0, map[string]Standing{"b1": Open, "b2": Unknown}},
		{"ran out", func() {}, time.Minute, map[string]Standing{"b1": Over}},
		{"claimed attempts do not run out", func() { tab.Claim("b1") }, time.Hour, map[string]Standing{"b1": Open}},
		{"the next attempt closes it", func() { put(t, tab, machine("a", 1, 1, "b2")) }, 0, map[string]Standing{"b1": Over, "b2": Open}},
		{"none is left", func() { put(t, tab, machine("a", 1, 1, "")) }, 0, map[string]Standing{"b1": Over, "b2": Over}},
		{"closed by name", func() { put(t, tab, machine("a", 1, 1, "b3")); tab.CloseBoot("b3") }, 0, map[string]Standing{"b3": Over}},
		{"handed away is not over", func() { put(t, tab, machine("a", 1, 1, "b4")); tab.Remove("a", 1) }, 0, map[string]Standing{"b4": Unknown}},
		{"and back", func() { put(t, tab, machine("a", 2, 1, "b4")) }, 0, map[string]Standing{"b4": Open}},
	}
	for _, st := range steps {
		st.do()
		for id, want := range st.want {
			if got := standing(tab, id, st.now); got != want {
				t.Errorf("%s: %s is %d, want %d", st.name, id, got, want)
			}
		}
	}
	if tab.Claim("b1") {
		t.Error("claimed a closed attempt")
	}
}

func TestClaimOutlivesARenewal(t *testing.T) {
	tab := New()
	put(t, tab, machine("a", 1, 1, "b1"))
	tab.Claim("b1")
	put(t, tab, machine("a", 1, 1, "b1"))
	m, _ := tab.ByMAC(mac(1))
	if got := m.Assignment(mac(1), 0); !got.Claimed {
		t.Errorf("assignment is %+v, want claimed", got)
	}
}

func TestEpochs(t *testing.T) {
	tab := New()
	put(t, tab, machine("a", 5, 1, ""))
	if err := tab.Put(machine("a", 4, 2, "")); !fault.Is(err, fault.StaleToken) {
		t.Errorf("older epoch: %v, want stale token", err)
	}
	if _, ok := tab.ByMAC(mac(2)); ok {
		t.Error("a refused assignment changed the table")
	}
	if tab.Remove("a", 4) {
		t.Error("removed by an older epoch")
	}
	if !tab.Remove("a", 5) || tab.Len() != 0 {
		t.Error("not removed by its own epoch")
	}
	if _, ok := tab.Reserved(addr(1)); ok {
		t.Error("the address is still reserved")
	}
}

func TestNewestWordWins(t *testing.T) {
	tab := New()
	put(t, tab, machine("a", 1, 1, "b1"))
	put(t, tab, machine("b", 1, 1, "b1"))
	if m, ok := tab.ByMAC(mac(1)); !ok || m.Node != "b" {
		t.Errorf("the MAC is %+v's", m)
	}
	if m, s := tab.ByBoot("b1", 0); s != Open || m.Node != "b" {
		t.Errorf("the boot attempt is %+v's", m)
	}
	a, ok := tab.ByNode("a")
	if !ok || len(a.Ports) != 0 || a.Boot != nil {
		t.Errorf("node a still has %+v", a)
	}
	other := machine("c", 1, 3, "")
	other.Ports[0].IP = addr(1)
	put(t, tab, other)
	if m, _ := tab.Reserved(addr(1)); m != mac(3) {
		t.Errorf("the address is reserved for %s", m)
	}
	if m, ok := tab.ByMAC(mac(1)); !ok || m.Node != "b" || m.Ports[0].IP.IsValid() {
		t.Errorf("node b holds %+v", m)
	}
}

func TestPutRefuses(t *testing.T) {
	twice := machine("a", 1, 1, "")
	twice.Ports = append(twice.Ports, twice.Ports[0])
	many := machine("a", 1, 1, "")
	for i := range MaxPorts {
		many.Ports = append(many.Ports, Port{MAC: MAC{2, 0, 0, 0, 1, byte(i)}})
	}
	noID := machine("a", 1, 1, "x")
	noID.Boot.ID = ""
	for name, m := range map[string]Machine{"no node": machine("", 1, 1, ""), "port twice": twice, "too many ports": many, "boot without id": noID} {
		if err := New().Put(m); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
}

func TestClosedIsBounded(t *testing.T) {
	tab := New()
	for i := range MaxClosed + 10 {
		tab.CloseBoot(fmt.Sprint(i))
	}
	if len(tab.closed) != MaxClosed || len(tab.order) != MaxClosed {
		t.Errorf("%d closed ids in %d places", len(tab.closed), len(tab.order))
	}
	if standing(tab, "0", 0) != Unknown || standing(tab, fmt.Sprint(MaxClosed+9), 0) != Over {
		t.Error("not the oldest was forgotten")
	}
}

func TestAssignment(t *testing.T) {
	tab := New()
	m := machine("a", 1, 1, "b1")
	m.Ports = append(m.Ports, Port{MAC: mac(2)})
	put(t, tab, m)
	tests := []struct {
		mac  MAC
		now  time.Duration
		want boot.Assignment
	}{
		{mac(1), 0, boot.Assignment{Known: true, PXE: true, BootID: "b1"}},
		{mac(1), time.Minute, boot.Assignment{Known: true, PXE: true}},
		{mac(2), 0, boot.Assignment{Known: true, BootID: "b1"}},
		{mac(3), 0, boot.Assignment{}},
	}
	for _, tt := range tests {
		got, _ := tab.ByMAC(tt.mac)
		if a := got.Assignment(tt.mac, tt.now); a != tt.want {
			t.Errorf("%s at %s: %+v, want %+v", tt.mac, tt.now, a, tt.want)
		}
	}
}

func TestParseMAC(t *testing.T) {
	for _, text := range []string{"52:54:00:ab:CD:ef", "52-54-00-ab-cd-ef"} {
		m, err := ParseMAC(text)
		if err != nil || m.String() != "52:54:00:ab:cd:ef" {
			t.Errorf("%q: %s, %v", text, m, err)
		}
	}
	for _, text := range []string{"", "52:54:00:ab:cd", "52:54:00:ab:cd:eg", "52:54-00:ab:cd:ef", "525400abcdef", "52.54.00.ab.cd.ef", "52:54:00:ab:cd:ef:00"} {
		if _, err := ParseMAC(text); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v, want invalid", text, err)
		}
	}
}

func TestConcurrentReaders(t *testing.T) {
	tab := New()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 500 {
				if m, ok := tab.ByMAC(mac(byte(n % 8))); ok && m.Ports[0].MAC != mac(byte(n%8)) {
					t.Errorf("found %+v", m)
				}
				_ = tab.Put(machine(fmt.Sprint(n%8), uint64(n), byte(n%8), fmt.Sprint("b", n%8)))
				tab.Claim(fmt.Sprint("b", (n+i)%8))
			}
		})
	}
	wg.Wait()
	if tab.Len() != 8 {
		t.Errorf("%d machines", tab.Len())
	}
}
