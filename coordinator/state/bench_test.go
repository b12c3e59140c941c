package state

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/farrier-project/farrier/coordinator/canon"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
)

// full is a world with so many nodes of about 1.5 KiB each, as they come out of the log.
func full(tb testing.TB, nodes int) (*world, string) {
	w := newWorld(tb)
	session := w.agent("r1", 1)
	w.log = nil
	for i := range nodes {
		body := createBodyOf(i, func(n *node.Node) {
			n.Description = strings.Repeat("d", 200)
			n.Properties = map[string]string{"cpu_arch": "x86_64", "vendor": "Acme", "notes": strings.Repeat("p", 300)}
			n.Extra = map[string]string{"rack": fmt.Sprint(i % 40), "notes": strings.Repeat("x", 400)}
			n.Secrets = map[string]node.Sealed{"redfish_password": {KeyID: 1, Box: bytes.Repeat([]byte{1}, 60)}}
		})
		data, err := command.Encode(command.Command{Header: command.Header{Cluster: cluster, At: epoch, Level: Level}, Body: body})
		if err != nil {
			tb.Fatal(err)
		}
		decoded, err := command.Decode(data)
		if err != nil {
			tb.Fatal(err)
		}
		w.index++
		if res := w.s.Apply(w.index, decoded[0]); res.Err != nil {
			tb.Fatal(res.Err)
		}
	}
	w.events = nil
	return w, session
}

func BenchmarkLockPair(b *testing.B) {
	w, session := full(b, 10000)
	h := command.Header{Cluster: cluster, At: epoch, Actor: "agent r1", Level: Level}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		w.index++
		id := nodeID(i % 2048)
		res := w.s.Apply(w.index, command.Command{Header: h, Body: command.AcquireLock{Node: id, Session: session, Holder: "agent r1", Task: "t", Purpose: "p"}})
		if res = w.s.Apply(w.index, command.Command{Header: h, Body: command.ReleaseLock{Node: id, Token: res.Token}}); res.Err != nil {
			b.Fatal(res.Err)
		}
		if i%64 == 0 {
			w.s.View()
		}
	}
}

func BenchmarkCreateNode(b *testing.B) {
	w, _ := full(b, 1)
	h := command.Header{Cluster: cluster, At: epoch, Level: Level}
	bodies := make([]command.CreateNode, b.N) // made outside: a coordinator that applies one has it from the log
	for i := range bodies {
		bodies[i] = createBody(10 + i)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range bodies {
		w.index++
		if res := w.s.Apply(w.index, command.Command{Header: h, Body: bodies[i]}); res.Err != nil {
			b.Fatal(res.Err)
		}
	}
}

// BenchmarkDeploy is one whole deploy and undeploy: 38 commands.
func BenchmarkDeploy(b *testing.B) {
	w := newWorld(b)
	w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage", "provide")
	b.ReportAllocs()
	for b.Loop() {
		w.to(id, "active", "deleted")
		w.log, w.events = nil, nil
	}
}

func BenchmarkView(b *testing.B) {
	w, session := full(b, 10000)
	h := command.Header{Cluster: cluster, At: epoch, Level: Level}
	for i := 0; b.Loop(); i++ {
		w.index++
		res := w.s.Apply(w.index, command.Command{Header: h, Body: command.AcquireLock{Node: nodeID(i % 10000), Session: session}})
		w.s.Apply(w.index, command.Command{Header: h, Body: command.ReleaseLock{Node: nodeID(i % 10000), Token: res.Token}})
		w.s.View()
	}
}

func BenchmarkSnapshot(b *testing.B) {
	w, _ := full(b, 10000)
	v := w.s.View()
	var buf bytes.Buffer
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			if err := v.WriteSnapshot(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
	if err := v.WriteSnapshot(&buf); err != nil {
		b.Fatal(err)
	}
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, err := ReadSnapshot(bytes.NewReader(buf.Bytes())); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkReplace is the death of an agent of two with 10,000 nodes.
func BenchmarkReplace(b *testing.B) {
	w, session := full(b, 10000)
	w.agent("r2", 1)
	for i := 2; b.Loop(); i++ {
		w.must(command.CloseSession{Session: session})
		b.StopTimer()
		session = w.agent("r1", uint64(i))
		w.log, w.events = nil, nil
		if w.s.View().NodesWith("r1") == 0 {
			w.must(command.CloseSession{Session: w.s.agent("r2").Session})
			w.agent("r2", uint64(i))
		}
		b.StartTimer()
	}
}

func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		w, _ := full(b, 20000)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/20000, "heapB/node")
		runtime.KeepAlive(w)
	}
}

// TestHashSeesEveryField changes each field of each record in turn.
func TestHashSeesEveryField(t *testing.T) {
	var h canon.Writer
	for _, c := range []struct {
		rec  any
		hash func(any)
	}{
		{&node.Port{}, func(r any) { hashPort(&h, r.(*node.Port)) }},
		{&flow.Flow{Steps: make([]flow.Step, 1)}, func(r any) { f := r.(*flow.Flow); hashStep(&h, &f.Steps[0]); hashFlowHead(&h, f) }},
		{&Session{}, func(r any) { hashSession(&h, r.(*Session)) }},
		{&Agent{}, func(r any) { hashAgent(&h, r.(*Agent)) }},
		{&Ring{}, func(r any) { hashRing(&h, r.(*Ring)) }},
		{&Client{}, func(r any) { hashClient(&h, r.(*Client)) }},
		{&Answer{}, func(r any) { hashAnswer(&h, r.(*Answer)) }},
		{&JoinToken{}, func(r any) { hashJoinToken(&h, r.(*JoinToken)) }},
		{&Certificate{}, func(r any) { hashCertificate(&h, r.(*Certificate)) }},
		{&command.Member{}, func(r any) { hashMember(&h, r.(*command.Member)) }},
		{&Alarm{}, func(r any) { hashAlarm(&h, r.(*Alarm)) }},
		{&Inventory{}, func(r any) { hashInventory(&h, r.(*Inventory)) }},
		{&event{Fields: make([]command.Field, 1)}, func(r any) { hashEvent(&h, r.(*event)) }},
		{&command.Settings{}, func(r any) { hashSettings(&h, r.(*command.Settings)) }},
	} {
		sum := func() uint64 { h.Reset(); c.hash(c.rec); return h.Sum() }
		zero := sum()
		leaves(reflect.ValueOf(c.rec).Elem(), reflect.TypeOf(c.rec).Elem().Name(), func(path string, set, unset func()) {
			set()
			if sum() == zero {
				t.Errorf("the hash does not see %s", path)
			}
			unset()
		})
	}
}

// TestSameStepSeesEveryField: a field that it does not see would be left out of the hash.
func TestSameStepSeesEveryField(t *testing.T) {
	var was flow.Step
	st := was
	leaves(reflect.ValueOf(&st).Elem(), "Step", func(path string, set, unset func()) {
		set()
		if sameStep(&st, &was) {
			t.Errorf("%s was changed", path)
		}
		unset()
	})
	if !sameStep(&st, &was) {
		t.Error("nothing was changed")
	}
}

// leaves visits every settable leaf of a value, with a way to set it and to take it back.
func leaves(v reflect.Value, path string, fn func(path string, set, unset func())) {
	old := reflect.New(v.Type()).Elem()
	old.Set(v)
	leaf := func(x any) {
		fn(path, func() { v.Set(reflect.ValueOf(x).Convert(v.Type())) }, func() { v.Set(old) })
	}
	switch v.Interface().(type) {
	case time.Time:
		leaf(epoch)
		return
	case lock.Token:
		leaf(lock.Token(7))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			leaves(v.Field(i), path+"."+v.Type().Field(i).Name, fn)
		}
	case reflect.String:
		leaf("x")
	case reflect.Bool:
		leaf(true)
	case reflect.Int, reflect.Int64, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		leaf(7)
	case reflect.Array:
		leaves(v.Index(0), path+"[0]", fn)
	case reflect.Slice:
		if v.Len() > 0 {
			leaves(v.Index(0), path+"[0]", fn)
			return
		}
		fn(path, func() { v.Set(reflect.MakeSlice(v.Type(), 1, 1)) }, func() { v.Set(old) })
	case reflect.Map:
		fn(path, func() {
			m := reflect.MakeMap(v.Type())
			m.SetMapIndex(reflect.ValueOf("k"), reflect.New(v.Type().Elem()).Elem())
			v.Set(m)
		}, func() { v.Set(old) })
	case reflect.Pointer:
		fn(path, func() { v.Set(reflect.New(v.Type().Elem())) }, func() { v.Set(old) })
	}
}
