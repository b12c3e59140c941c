package apply

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
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
		data, err := command.Encode(command.Command{Header: command.Header{Cluster: cluster, At: epoch, Level: state.Level}, Body: body})
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
	h := command.Header{Cluster: cluster, At: epoch, Actor: "agent r1", Level: state.Level}
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
	h := command.Header{Cluster: cluster, At: epoch, Level: state.Level}
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
	h := command.Header{Cluster: cluster, At: epoch, Level: state.Level}
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
			if _, err := state.ReadSnapshot(bytes.NewReader(buf.Bytes())); err != nil {
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
			w.must(command.CloseSession{Session: w.s.Agent("r2").Session})
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
