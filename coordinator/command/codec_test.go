package command

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "github.com/farrier-project/farrier/api/gen/farrier/raftlog/v1"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/pkg/fault"
)

var update = flag.Bool("update", false, "write the golden log again (only before it was ever released)")

// bodies has one value of every command type; TestEveryCommand holds it to the messages of log.proto.
func bodies() []Body {
	return []Body{
		InitCluster{}, Tick{}, UpdateSettings{}, OpenSession{}, CloseSession{}, SetDrain{}, RemoveAgent{}, MoveNodes{},
		HandoverAck{}, CreateNode{}, UpdateNode{}, DeleteNode{}, CreatePort{}, UpdatePort{}, DeletePort{},
		SetMaintenance{}, WaiveWipe{}, Provision{}, SetPower{}, Outcome{}, Edge{}, PowerSeen{}, Timeout{}, Resume{}, AcquireLock{},
		ReleaseLock{}, BreakLock{}, PutMember{}, RemoveMember{}, CreateJoinToken{}, UseJoinToken{}, RaiseLevel{},
		NewGeneration{}, RecordBMCSession{}, RenewCertificate{}, RevokeCertificates{}, RecoverRoster{}, Batch{},
	}
}

func TestEveryCommand(t *testing.T) {
	arms := (&pb.Body{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	if got, want := len(bodies()), arms.Len(); got != want {
		t.Fatalf("the table has %d commands, log.proto has %d", got, want)
	}
	seen := map[protowire.Number]bool{}
	for _, b := range bodies() {
		m, err := bodyProto(b, 0)
		if err != nil {
			t.Errorf("%T: %v", b, err)
			continue
		}
		fd := m.ProtoReflect().WhichOneof(m.ProtoReflect().Descriptor().Oneofs().ByName("body"))
		if fd == nil || seen[fd.Number()] {
			t.Errorf("%T has no message of its own", b)
			continue
		}
		seen[fd.Number()] = true
		raw, err := Encode(Command{Body: b})
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(raw)
		if err != nil || len(back) != 1 || reflect.TypeOf(back[0].Body) != reflect.TypeOf(b) {
			t.Errorf("%T comes back as %#v, %v", b, back, err)
		}
	}
}

// fill draws a value for every field by reflection, so that a field which the codec forgets is found.
func fill(t *rapid.T, v reflect.Value) {
	switch v.Interface().(type) {
	case time.Time:
		if n := rapid.Int64().Draw(t, "time"); n != 0 {
			v.Set(reflect.ValueOf(time.Unix(0, n).UTC()))
		}
		return
	case lifecycle.State:
		states := []lifecycle.State{lifecycle.None, lifecycle.Enroll, lifecycle.Available, lifecycle.DeployWait, lifecycle.ServiceFailed}
		v.Set(reflect.ValueOf(rapid.SampledFrom(states).Draw(t, "state")))
		return
	case node.Packed:
		v.Set(reflect.ValueOf(node.Packed{Form: rapid.Uint32Range(0, node.PackForm).Draw(t, "form"), Data: rapid.String().Draw(t, "data")}))
		return
	}
	if v.Type() == reflect.TypeFor[Body]() {
		b := rapid.SampledFrom(bodies()[:len(bodies())-1]).Draw(t, "body")
		p := reflect.New(reflect.TypeOf(b)).Elem()
		fill(t, p)
		v.Set(p)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case reflect.String:
		v.SetString(rapid.String().Draw(t, "s"))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "b"))
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.Int64().Draw(t, "i"))
	case reflect.Uint8:
		v.SetUint(uint64(rapid.Uint8().Draw(t, "u8")))
	case reflect.Uint32:
		v.SetUint(uint64(rapid.Uint32().Draw(t, "u32")))
	case reflect.Uint64:
		v.SetUint(rapid.Uint64().Draw(t, "u64"))
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i))
		}
	case reflect.Slice:
		if n := rapid.IntRange(0, 3).Draw(t, "len"); n > 0 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
			for i := range n {
				fill(t, v.Index(i))
			}
		}
	case reflect.Map:
		if n := rapid.IntRange(0, 3).Draw(t, "len"); n > 0 {
			v.Set(reflect.MakeMap(v.Type()))
			for range n {
				k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
				fill(t, k)
				fill(t, e)
				v.SetMapIndex(k, e)
			}
		}
	case reflect.Pointer:
		if rapid.Bool().Draw(t, "set") {
			v.Set(reflect.New(v.Type().Elem()))
			fill(t, v.Elem())
		}
	default:
		t.Fatalf("fill: %s", v.Type())
	}
}

func TestRoundTrip(t *testing.T) {
	for _, b := range bodies() {
		typ := reflect.TypeOf(b)
		t.Run(typ.Name(), rapid.MakeCheck(func(t *rapid.T) {
			p := reflect.New(typ).Elem()
			fill(t, p)
			want := Command{Body: p.Interface().(Body)}
			fill(t, reflect.ValueOf(&want.Header).Elem())
			raw, err := Encode(want)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff([]Command{want}, got); d != "" {
				t.Fatal(d)
			}
			// The bytes are what any other reader of log.proto understands.
			var e pb.Entry
			if err := proto.Unmarshal(raw, &e); err != nil || len(e.Commands) != 1 || e.Commands[0].Actor != want.Header.Actor {
				t.Fatalf("not an Entry: %v", err)
			}
		}))
	}
}

func TestEntriesConcatenate(t *testing.T) {
	a, b := Command{Body: SetDrain{Agent: "a", On: true}}, Command{Body: DeletePort{Port: "p"}}
	both, _ := Encode(a, b)
	ea, _ := Encode(a)
	eb, _ := Encode(b)
	if !bytes.Equal(both, append(ea, eb...)) {
		t.Fatal("Encode(a, b) is not Encode(a) followed by Encode(b)")
	}
}

func TestRecordsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var n node.Node
		fill(t, reflect.ValueOf(&n).Elem())
		got, err := DecodeNode(AppendNode(nil, &n))
		if d := cmp.Diff(&n, got); err != nil || d != "" {
			t.Fatal(err, d)
		}
		if !bytes.Equal(AppendNode(nil, &n), AppendNode(nil, got)) {
			t.Fatal("equal nodes have different bytes")
		}
		var f flow.Flow
		fill(t, reflect.ValueOf(&f).Elem())
		back, err := DecodeFlow(AppendFlow(nil, &f))
		if d := cmp.Diff(&f, back); err != nil || d != "" {
			t.Fatal(err, d)
		}
		var p node.Port
		fill(t, reflect.ValueOf(&p).Elem())
		port, err := DecodePort(AppendPort(nil, &p))
		if d := cmp.Diff(&p, port); err != nil || d != "" {
			t.Fatal(err, d)
		}
		var s Settings
		fill(t, reflect.ValueOf(&s).Elem())
		set, err := DecodeSettings(AppendSettings(nil, s))
		if d := cmp.Diff(s, set); err != nil || d != "" {
			t.Fatal(err, d)
		}
	})
}

func TestDecodeRefuses(t *testing.T) {
	entry := func(command []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, entryCommands, protowire.BytesType), command)
	}
	body := func(b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, 9, protowire.BytesType), b)
	}
	field := func(n protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), b)
	}
	good, _ := Encode(Command{Body: Resume{Node: "n", Flow: 7}})
	for _, c := range []struct {
		name string
		data []byte
		want fault.Kind
	}{
		{"a command of a later release", entry(body(field(4000, nil))), fault.Version},
		{"a header field of a later release", entry(append(field(100, []byte("x")), body(field(23, nil))...)), fault.Version},
		{"an entry field of a later release", field(9, []byte("x")), fault.Version},
		{"a later command within a batch", entry(body(field(33, field(1, field(4000, nil))))), fault.Version},
		{"a node in a state of a later release", entry(body(field(10, field(1, field(5, []byte("melting")))))), fault.Version},
		{"no body", entry(nil), fault.Corrupt},
		{"an empty body", entry(body(nil)), fault.Corrupt},
		{"a batch within a batch", entry(body(field(33, field(1, field(33, nil))))), fault.Corrupt},
		{"a digest of 3 bytes", entry(append(field(6, []byte("abc")), body(field(23, nil))...)), fault.Corrupt},
		{"a token hash of 3 bytes", entry(body(field(30, field(2, []byte("abc"))))), fault.Corrupt},
		{"cut short", good[:len(good)-1], fault.Corrupt},
		{"a loose tag", append(bytes.Clone(good), 0x0a), fault.Corrupt},
		{"too long a command", entry(make([]byte, MaxSize+1)), fault.Corrupt},
		{"too long an entry", make([]byte, MaxEntrySize+1), fault.Corrupt},
	} {
		got, err := Decode(c.data)
		if !fault.Is(err, c.want) || got != nil {
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.want)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		body Body
		want fault.Kind
	}{
		{"no body", nil, fault.Invalid},
		{"a batch within a batch", Batch{Commands: []Body{Batch{}}}, fault.Invalid},
		{"bytes that are not UTF-8", SetDrain{Agent: "\xff"}, fault.Invalid},
		{"too large", Outcome{Inventory: make([]byte, MaxSize)}, fault.TooLarge},
	} {
		if raw, err := Encode(Command{Body: c.body}); !fault.Is(err, c.want) || raw != nil {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// TestEnumsHold guards the numbers that lie in logs and snapshots.
func TestEnumsHold(t *testing.T) {
	got := []int{
		int(flow.Verify), int(flow.Inspect), int(flow.Clean), int(flow.Deploy), int(flow.Rebuild), int(flow.Undeploy), int(flow.Power),
		int(flow.Pending), int(flow.Running), int(flow.Done), int(flow.Failed), int(flow.Aborted), int(flow.Skipped),
		int(node.PowerUnknown), int(node.PowerOn), int(node.PowerOff),
	}
	want := []int{1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 0, 1, 2}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("numbers in old logs changed their meaning: %v, want %v", got, want)
	}
}

// golden is a log of level 1 with every command, in the order in which they came to be; goldenLogs is what was written
// for it when they came.
func golden() []Command {
	var out []Command
	yes := true
	at := time.Unix(1790000000, 5).UTC()
	n := node.Node{
		ID: "0e4d6d2c-0000-4000-8000-000000000001", Name: "n1", Driver: "redfish", Group: "rack1", Provision: lifecycle.DeployWait,
		TargetProvision: lifecycle.Active, Power: node.PowerOn, Owner: "rack1-a", Epoch: 3,
		Lock:  node.Lock{Token: 1<<48 | 7, Session: "s1", Holder: "agent rack1-a", Task: "deploy", Purpose: "deploy", Since: at, Flow: 9},
		Token: 1<<48 | 7, Flow: 9, FlowOpen: true, Traits: []string{"CUSTOM_A"}, Properties: map[string]string{"cpus": "8"},
		DriverInfo: map[string]string{"address": "https://bmc"}, Secrets: map[string]node.Sealed{"password": {KeyID: 2, Box: []byte{1, 2}}},
		AutomatedClean: &yes, Instance: node.Instance{UUID: "i", ImageURL: "https://image", MetaData: map[string]string{"k": "v"}},
		Tenanted: true, Wipe: &node.Wipe{Method: "discard", Disks: []string{"d"}, Who: "agent", At: at}, Version: 4, CreatedAt: at,
	}
	p := node.Port{ID: "p1", Node: n.ID, Address: "52:54:00:00:00:01", PXEEnabled: true, Version: 1}
	for i, b := range []Body{
		InitCluster{ClusterID: "c", CACert: []byte{1}, CAKey: node.Sealed{KeyID: 1, Box: []byte{9}}, Settings: DefaultSettings()},
		Tick{D: 250 * time.Millisecond, FirstOfTerm: true, Renew: []string{"s1"}, ClientSeen: []string{"x"}},
		UpdateSettings{Settings: DefaultSettings()},
		OpenSession{Session: "s1", Resume: "s0", Agent: "rack1-a", Group: "rack1", Drivers: []string{"fake", "redfish"}, Weight: 10,
			Journal: "ab", Incarnation: 2, Version: "1", Level: 1, RamdiskURL: "https://a:8443", HTTPURL: "http://a:8080", RamdiskPin: "cd"},
		CloseSession{Session: "s1", Reason: "stopped"}, SetDrain{Agent: "rack1-a", On: true}, RemoveAgent{Agent: "rack1-a"},
		MoveNodes{Moves: []Move{{Node: n.ID, From: "rack1-a", To: "rack1-b"}}}, HandoverAck{Node: n.ID, Agent: "rack1-a", Epoch: 3},
		CreateNode{Node: node.Pack(&n), Ports: []node.Port{p}}, UpdateNode{Node: n, Fields: []string{"name"}, Version: 4}, DeleteNode{Node: n.ID},
		CreatePort{Port: p}, UpdatePort{Port: p, Fields: []string{"address"}, Version: 1}, DeletePort{Port: "p1"},
		SetMaintenance{Node: n.ID, On: true, Reason: "disk", Fault: "power failure"}, WaiveWipe{Node: n.ID, Reason: "new"},
		Provision{Node: n.ID, Verb: "active", Instance: &n.Instance, CleanSteps: []CleanStep{{Interface: "deploy", Step: "erase", Args: map[string]string{"a": "b"}}}},
		SetPower{Node: n.ID, Target: "power on"},
		Outcome{Node: n.ID, Flow: 9, Step: 2, Attempt: 1, Token: 7, Boot: "b", OK: true, Error: "e", ErrorKind: "timeout", Retryable: true,
			Facts: map[string]string{"digest": "d"}, Inventory: []byte{7}, Agent: "rack1-a"},
		Edge{Node: n.ID, Flow: 9, Boot: "b", Kind: "first_contact", KeyHash: "k", Detail: "d", Agent: "rack1-a"},
		Timeout{Node: n.ID, Flow: 9, Step: 2, Attempt: 1, Deadline: time.Minute}, Resume{Node: n.ID, Flow: 9},
		AcquireLock{Node: n.ID, Session: "s1", Holder: "operator alice", Task: "t", Purpose: "look"}, ReleaseLock{Node: n.ID, Token: 7},
		BreakLock{Node: n.ID, Token: 7, Reason: "gone"},
		PutMember{Member: Member{ID: "c1", RaftAddress: "h:7601", APIAddress: "h:7600", RackAddress: "h:7602", Version: "1", Level: 1}},
		RemoveMember{ID: "c1"}, CreateJoinToken{ID: "t", Role: "agent", Name: "a", Group: "g", Hash: [32]byte{1}, TTL: time.Hour},
		UseJoinToken{ID: "t", Hash: [32]byte{1}, Role: "agent"}, RaiseLevel{Level: 2}, NewGeneration{Reason: "restore"},
		Batch{Commands: []Body{SetDrain{Agent: "a"}, DeletePort{Port: "p"}}},
		RecordBMCSession{Node: n.ID, Session: "s1", Agent: "rack1-a", URI: "/redfish/v1/SessionService/Sessions/1", Opened: true},
		RenewCertificate{Key: [32]byte{7}, TTL: time.Hour}, RevokeCertificates{Role: "operator", Name: "alice", Reason: "a stolen laptop"},
		RecoverRoster{Issued: []Issued{{Key: [32]byte{7}, Role: "operator", Name: "admin", TTL: time.Hour}}},
		RemoveMember{ID: "c1", Rejoins: true}, UseJoinToken{ID: "t", Hash: [32]byte{1}, Role: "agent", Key: [32]byte{8}, TTL: time.Hour},
		InitCluster{ClusterID: "c", Issued: []Issued{{Key: [32]byte{9}, Role: "agent", Name: "a", Group: "g", TTL: time.Hour}}},
		OpenSession{Session: "s1", Agent: "rack1-a", Key: [32]byte{8}},
		CreateNode{Node: node.Pack(&n), Ports: []node.Port{p}},
		PowerSeen{Node: n.ID, Agent: "rack1-a", Epoch: 3, Power: node.PowerOff, Error: "no answer"},
	} {
		out = append(out, Command{Body: b, Header: Header{
			Cluster: "c", At: at.Add(time.Duration(i)), Actor: "operator alice", Level: 1, Seed: [16]byte{byte(i + 1)},
			Request: RequestID{Client: "cl", Seq: uint64(i), Digest: [16]byte{byte(i), 1}},
		}})
	}
	return out
}

// TestANodeInANewerFormIsNotRead: this build would take its bytes for something else.
func TestANodeInANewerFormIsNotRead(t *testing.T) {
	raw, err := Encode(Command{Body: CreateNode{Node: node.Packed{Form: node.PackForm + 1, Data: "x"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(raw); !fault.Is(err, fault.Version) {
		t.Errorf("it was read: %v", err)
	}
}

// goldenLogs are files of testdata and how many commands of golden each holds, in order. A command that is added gets a
// file of its own: what was written once is never written again.
var goldenLogs = []struct { // read-only
	file     string
	commands int
}{{"level1.log", 33}, {"level1-bmc-session.log", 1}, {"level1-certificates.log", 7}, {"level1-packed-node.log", 1}, {"level1-power-seen.log", 1}}

// TestGoldenLog holds every later build to what the first ones wrote: a length before each entry, one command each.
func TestGoldenLog(t *testing.T) {
	all := golden()
	kinds := map[string]bool{}
	for _, c := range all {
		kinds[fmt.Sprintf("%T", c.Body)] = true
	}
	if len(kinds) != len(bodies()) {
		t.Fatalf("commands of %d types, want one of each of %d", len(kinds), len(bodies()))
	}
	for _, l := range goldenLogs {
		path, want := filepath.Join("testdata", l.file), all[:l.commands]
		all = all[l.commands:]
		if _, err := os.Stat(path); *update && os.IsNotExist(err) {
			writeGolden(t, path, want)
		}
		if d := cmp.Diff(want, readGolden(t, path)); d != "" {
			t.Errorf("%s: %s", l.file, d)
		}
	}
	if len(all) != 0 {
		t.Errorf("%d commands are in no file", len(all))
	}
}

func writeGolden(t *testing.T, path string, commands []Command) {
	t.Helper()
	var out []byte
	for _, c := range commands {
		raw, err := Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		out = protowire.AppendBytes(out, raw)
	}
	if err := os.WriteFile(path, out, 0o644); err != nil {
		t.Fatal(err)
	}
}

func readGolden(t *testing.T, path string) (got []Command) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for len(data) > 0 {
		raw, n := protowire.ConsumeBytes(data)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		c, err := Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, c...)
		data = data[n:]
	}
	return got
}

// TestSnapshotRecordRoundTrip: the records of a snapshot that the codec of records has no other test for.
func TestSnapshotRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for _, rec := range []any{&BMCSessions{}, &node.Packed{}, &Certificate{}} {
			fill(t, reflect.ValueOf(rec).Elem())
			got, err := DecodeSnapshotRecord(AppendSnapshotRecord(nil, rec))
			if d := cmp.Diff(rec, got); err != nil || d != "" {
				t.Fatal(err, d)
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, c := range golden() {
		raw, _ := Encode(c)
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Decode(data)
		if err != nil {
			if k := fault.KindOf(err); k != fault.Corrupt && k != fault.Version {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if _, err := Encode(got...); err != nil {
			t.Fatalf("what was decoded does not encode: %v", err)
		}
	})
}

func BenchmarkAcquireLock(b *testing.B) {
	c := Command{
		Header: Header{Cluster: "9f1c6b7a2d3e4f50", At: time.Unix(1790000000, 1), Actor: "agent rack1-a", Level: 1, Seed: [16]byte{1},
			Request: RequestID{Client: "0123456789abcdef", Seq: 900, Digest: [16]byte{1}}},
		Body: AcquireLock{Node: "0e4d6d2c-0000-4000-8000-000000000001", Session: "0123456789abcdef", Holder: "agent rack1-a", Task: "power", Purpose: "power on"},
	}
	b.ReportAllocs()
	for b.Loop() {
		raw, err := Encode(c)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}
