package downlink

import (
	"strings"
	"testing"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
)

const uuidA = "00112233-4455-6677-8899-aabbccddeeff"

func TestMachineDiffers(t *testing.T) {
	other := "99112233-4455-6677-8899-aabbccddeeff"
	for _, tc := range []struct {
		name       string
		bmc, found Machine
		want       []string // in the cause; nil: the machines may be one
	}{
		{"the same", Machine{uuidA, "S1"}, Machine{strings.ToUpper(uuidA), "s1 "}, nil},
		{"the first fields swapped", Machine{UUID: uuidA}, Machine{UUID: "33221100-5544-7766-8899-aabbccddeeff"}, nil},
		{"another UUID", Machine{UUID: uuidA}, Machine{UUID: other}, []string{uuidA, other}},
		{"another UUID and serial number", Machine{uuidA, "S1"}, Machine{other, "S2"}, []string{uuidA, other, "S1", "S2"}},
		{"the board's serial number", Machine{uuidA, "CN1"}, Machine{uuidA, "S1"}, nil},
		{"the BMC's own UUID", Machine{uuidA, "S1"}, Machine{other, "S1"}, nil},
		{"serial numbers only", Machine{Serial: "S1"}, Machine{uuidA, "S2"}, []string{"S1", "S2"}},
		{"the BMC knows nothing", Machine{}, Machine{other, "S2"}, nil},
		{"the ramdisk knows nothing", Machine{uuidA, "S1"}, Machine{}, nil},
		{"zero", Machine{UUID: uuidA}, Machine{UUID: "00000000-0000-0000-0000-000000000000", Serial: "0"}, nil},
		{"all ones", Machine{UUID: "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"}, Machine{UUID: other}, nil},
		{"never filled in", Machine{"Not Specified", "Not Specified"}, Machine{other, "S2"}, nil},
		{"both never filled in", Machine{uuidA, "To Be Filled By O.E.M."}, Machine{other, "To be filled by O.E.M."}, []string{uuidA, other}},
	} {
		cause := tc.bmc.differs(tc.found)
		if (cause == "") != (tc.want == nil) {
			t.Errorf("%s: %q", tc.name, cause)
		}
		for _, part := range tc.want {
			if !strings.Contains(cause, part) {
				t.Errorf("%s: %q does not name %s", tc.name, cause, part)
			}
		}
	}
}

// TestAnotherMachineWasWritten: with a copied MAC or a wrong BMC address, a ramdisk on another machine than the one under
// the node's BMC was let in.
func TestAnotherMachineWasWritten(t *testing.T) {
	t.Parallel()
	r := newRack(t, newCA(t), "a", "rack1")
	r.assign(t, nil)
	r.Expect(bootA, Machine{UUID: uuidA})
	refusesAnother(t, r)
}

// TestAnotherMachineWasWrittenAfterATakeover: an agent that took the node over after another had prepared the boot did not know
// which machine was to come.
func TestAnotherMachineWasWrittenAfterATakeover(t *testing.T) {
	t.Parallel()
	r := newRack(t, newCA(t), "a", "rack1")
	r.assign(t, func(a *farrierv1.Assign) { a.Boot.SystemUuid, a.Boot.Serial = uuidA, "S1" })
	refusesAnother(t, r)
}

// refusesAnother boots another machine than uuidA, and then that.
func refusesAnother(t *testing.T, r *rack) {
	t.Helper()
	m := newRamdisk(t)
	q := &farrierv1.LookupRequest{BootId: bootA, Secret: secret, CsrDer: m.csr, Macs: []string{macA}, SystemUuid: "99112233-4455-6677-8899-aabbccddeeff"}
	if _, err := m.to(r).Lookup(t.Context(), q); kindOf(err) != "denied" || !strings.Contains(err.Error(), uuidA) || !strings.Contains(err.Error(), q.SystemUuid) {
		t.Fatalf("%v, want denied, with both values", err)
	}
	if e := r.edge(t, edgeWrongMachine); !strings.Contains(e.Detail, uuidA) || !strings.Contains(e.Detail, q.SystemUuid) {
		t.Errorf("told %q", e.Detail)
	}
	want(t, "just told", r.kinds())
	r.clock.advance(edgeRepeat)
	want(t, "again", r.kinds(), edgeWrongMachine)
	q.SystemUuid = uuidA
	if _, err := m.to(r).Lookup(t.Context(), q); err != nil {
		t.Errorf("the right machine: %v", err)
	}
}
