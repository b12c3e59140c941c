package node

import (
	"encoding/hex"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/farrier-project/farrier/coordinator/canon"
)

// full has every field set.
func full() *Node {
	clean, at := false, time.Date(2026, time.November, 22, 12, 0, 0, 0, time.UTC)
	return &Node{
		ID: "x", Name: "x", Driver: "x", Group: "x", Provision: 7, TargetProvision: 7, Power: 7, TargetPower: "x",
		Maintenance: true, MaintenanceReason: "x", Fault: "x", LastError: "x", Owner: "x", PrevOwner: "x", Epoch: 7,
		Lock:  Lock{Token: 1 << 63, Session: "x", Holder: "x", Task: "x", Purpose: "x", Since: at, Flow: 7},
		Token: 1<<48 | 5, Flow: 7, FlowOpen: true,
		Description: "x", ResourceClass: "x", LesseeID: "x", OwnerID: "x", Traits: []string{"T1", "T2"},
		Properties: map[string]string{"a": "b", "c": ""}, Extra: map[string]string{"k": ""},
		DriverInfo:     map[string]string{"d": strings.Repeat("e", 300)},
		Secrets:        map[string]Sealed{"p": {KeyID: 3, Box: []byte{1, 2}}, "q": {}},
		AutomatedClean: &clean, Protected: true, Retired: true, ProtectedReason: "x", BootMode: "x", WeakBoot: true,
		Instance: Instance{
			UUID: "x", Hostname: "x", ImageURL: "x", ImageSHA: "x", ImageFmt: "x", RootDeviceHints: map[string]string{"k": ""},
			MetaData: map[string]string{"k": ""}, UserData: Sealed{KeyID: 1, Box: []byte{7}},
			NetworkData: Sealed{KeyID: 1 << 20, Box: []byte{8}}, ImageDigest: "x", DiskID: "x",
		},
		Tenanted: true, Wipe: &Wipe{Method: "x", Disks: []string{"d1", "d2"}, Sampled: 300, Who: "x", Reason: "x", At: at},
		Written: []string{"W1", "W2"}, Version: 7, CreatedAt: at, UpdatedAt: at, ProvisionUpdatedAt: at,
	}
}

// fields visits each field of a struct, those of structs within it too.
func fields(v reflect.Value, path string, fn func(path string, v reflect.Value)) {
	for i := range v.NumField() {
		f, p := v.Field(i), path+"."+v.Type().Field(i).Name
		if _, isTime := f.Interface().(time.Time); f.Kind() == reflect.Struct && !isTime {
			fields(f, p, fn)
			continue
		}
		if f.Kind() == reflect.Pointer && f.Type().Elem().Kind() == reflect.Struct && !f.IsNil() {
			fields(f.Elem(), p, fn)
		}
		fn(p, f)
	}
}

// TestPackSeesEveryField: a field that it does not write would be lost by a snapshot, and left out of the hash.
func TestPackSeesEveryField(t *testing.T) {
	n := full()
	packed := Pack(n).Data
	fields(reflect.ValueOf(n).Elem(), "Node", func(path string, v reflect.Value) {
		if v.IsZero() {
			t.Fatalf("%s is not set", path)
		}
		was := reflect.New(v.Type()).Elem()
		was.Set(v)
		v.SetZero()
		if Pack(n).Data == packed {
			t.Errorf("%s is not written", path)
		}
		v.Set(was)
	})
}

func TestUnpack(t *testing.T) {
	for what, n := range map[string]*Node{"full": full(), "empty": {}} {
		back, ok := Unpack(Pack(n).Data)
		if !ok || !reflect.DeepEqual(n, back) {
			t.Errorf("%s, packed\n%+v\nunpacked\n%+v", what, n, back)
		}
	}
}

func TestUnpackHead(t *testing.T) {
	n := full()
	packed := Pack(n).Data
	head, body, ok := UnpackHead(packed)
	n.Properties, n.Extra, n.DriverInfo, n.Secrets, n.Traits, n.Written = nil, nil, nil, nil, nil, nil
	n.Instance.RootDeviceHints, n.Instance.MetaData = nil, nil
	if !ok || !reflect.DeepEqual(head, n) {
		t.Errorf("head %+v", head)
	}
	var w canon.Writer
	WriteBody(&w, full())
	if packed[body:] != string(w.Bytes()) {
		t.Error("the body does not begin where it should")
	}
}

// TestCutNodesAreSeen: what is not a whole node is read as none, also when the body is only checked.
func TestCutNodesAreSeen(t *testing.T) {
	resting := full()
	resting.FlowOpen, resting.Lock, resting.PrevOwner = false, Lock{}, ""
	bare := full()
	bare.Written = nil
	tail := strings.TrimPrefix(Pack(full()).Data, Pack(bare).Data)
	for _, packed := range []string{Pack(full()).Data, Pack(resting).Data} {
		for cut := range packed {
			if packed[cut:] == tail {
				continue // a whole node of form 1
			}
			if _, _, ok := UnpackAwake(packed[:cut]); ok {
				t.Fatalf("%d of %d bytes were read as a node", cut, len(packed))
			}
		}
		if _, _, ok := UnpackAwake(packed); !ok {
			t.Error("a whole node was not read")
		}
	}
	for _, wrong := range []string{Pack(full()).Data + "x", strings.Repeat("\xff", 400)} {
		if _, ok := Unpack(wrong); ok {
			t.Errorf("%d bytes that are no node were read as one", len(wrong))
		}
	}
}

// TestPackedFormsAreReadForEver: logs, snapshots and archives have nodes packed. A failure here means that the form changed:
// give the new one the next number, and keep reading this one.
func TestPackedFormsAreReadForEver(t *testing.T) {
	for form, wants := range map[int]func(*Node){
		1: func(n *Node) { n.Written = nil },
		2: func(*Node) {},
	} {
		want := full()
		wants(want)
		want.Wipe.Method, want.Wipe.Who, want.Wipe.Reason = "m", "", "" // as the files have it
		golden, err := os.ReadFile(fmt.Sprintf("testdata/packed%d.hex", form))
		if err != nil {
			t.Fatal(err)
		}
		packed, err := hex.DecodeString(strings.TrimSpace(string(golden)))
		if err != nil {
			t.Fatal(err)
		}
		n, ok := Unpack(string(packed))
		if !ok || !reflect.DeepEqual(n, want) {
			t.Errorf("form %d is read as %+v", form, n)
		}
		if got := Pack(want).Data; got != string(packed) {
			t.Errorf("a node of form %d is written as %x", form, got)
		}
	}
}
