package selection

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
)

const machine = `{"name": "m1", "version": "7", "maintenance": false, "traits": ["CUSTOM_A", "CUSTOM_B"], "lock": {"queued": 1000000, "holder": "bob", "purpose": ""},
	"driver_info": {"a.b": "1", "address": "https://bmc/?x=1&y=2"}, "ports": [{"address": "52:54:00:00:00:01", "ip": ""}, {"address": "52:54:00:00:00:02", "ip": "10.0.0.2"}]}`

func thing(t *testing.T) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(machine), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func fields(t *testing.T, names string) Fields {
	t.Helper()
	f, err := Parse((&farrierv1.Node{}).ProtoReflect().Descriptor(), strings.Split(names, ","))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestFieldsStandInTheOrderAskedFor: in a table, in JSON and in YAML, each where it was in the thing.
func TestFieldsStandInTheOrderAskedFor(t *testing.T) {
	for _, c := range []struct{ names, cells, json, mask string }{
		{"version,name", "7|m1", `{"version":"7","name":"m1"}`, "version,name"},
		{"name,name, maintenance", "m1|false", `{"name":"m1","maintenance":false}`, "name,maintenance"},
		{"traits", "CUSTOM_A, CUSTOM_B", `{"traits":["CUSTOM_A","CUSTOM_B"]}`, "traits"},
		{"ports.ip,name,ports.address", ", 10.0.0.2|m1|52:54:00:00:00:01, 52:54:00:00:00:02",
			`{"ports":[{"ip":"","address":"52:54:00:00:00:01"},{"ip":"10.0.0.2","address":"52:54:00:00:00:02"}],"name":"m1"}`, "ports,name,ports"},
		{"driver_info.a.b,driver_info.address", "1|https://bmc/?x=1&y=2", `{"driver_info":{"a.b":"1","address":"https://bmc/?x=1&y=2"}}`, "driver_info,driver_info"},
		{"lock,lock.holder", "holder=bob, queued=1000000|bob", `{"lock":{"holder":"bob","purpose":"","queued":1000000}}`, "lock,lock.holder"},
		{"flow.state,instance.image.url,driver_info.none,fault", "|||", `{"driver_info":{}}`, "flow.state,instance.image.url,driver_info,fault"},
	} {
		f := fields(t, c.names)
		if got := strings.Join(f.Cells(thing(t)), "|"); got != c.cells {
			t.Errorf("%s: cells %q, want %q", c.names, got, c.cells)
		}
		if got := strings.Join(f.Mask(), ","); got != c.mask {
			t.Errorf("%s: mask %q, want %q", c.names, got, c.mask)
		}
		data, err := f.Pick(thing(t)).(object).MarshalJSON()
		if got := strings.ReplaceAll(string(data), "\n", ""); err != nil || got != c.json {
			t.Errorf("%s: %s, %v, want %s", c.names, got, err, c.json)
		}
	}
	data, err := yaml.Marshal(fields(t, "version,name,lock.holder").Pick(thing(t)))
	if want := "version: \"7\"\nname: m1\nlock:\n    holder: bob\n"; err != nil || string(data) != want {
		t.Errorf("YAML %s, %v", data, err)
	}
}

// TestATimeReadsAsInTheOtherTables: local, and without a zone; in JSON it stays what it was.
func TestATimeReadsAsInTheOtherTables(t *testing.T) {
	f := fields(t, "created_at")
	v := map[string]any{"created_at": "2026-01-02T03:04:05.678Z"}
	if got := f.Cells(v)[0]; len(got) != len("2026-01-02 03:04:05") {
		t.Errorf("a cell with %q", got)
	}
	if got := f.Pick(v).(object); got[0].value != v["created_at"] {
		t.Errorf("picked %v", got)
	}
}

// TestAnUnknownFieldIsToldTheOnesThereAre: where the name goes wrong.
func TestAnUnknownFieldIsToldTheOnesThereAre(t *testing.T) {
	for names, help := range map[string]string{"state": "provision_state", "name,lock.who": "holder", "": "provision_state", "name.first": "--fields name", "created_at.seconds": "--fields created_at", "ports.mac": "address"} {
		_, err := Parse((&farrierv1.Node{}).ProtoReflect().Descriptor(), strings.Split(names, ","))
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.(*fault.Error).Help, help) {
			t.Errorf("%q: %v", names, err)
		}
	}
	if f, err := Parse((&farrierv1.Node{}).ProtoReflect().Descriptor(), nil); err != nil || !f.All() || f.Mask() != nil {
		t.Errorf("no names: %v, %v", f, err)
	}
	if !slices.Contains(Names((&farrierv1.Node{}).ProtoReflect().Descriptor()), "traits") {
		t.Error("the names of a node's fields lack traits")
	}
}
