package upload_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/apply"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/replica/archive"
	"github.com/farrier-project/farrier/coordinator/replica/entry"
	"github.com/farrier-project/farrier/coordinator/replica/upload"
	"github.com/farrier-project/farrier/pkg/fault"
)

// log is the entries of a term, as a member sees them.
type log struct {
	t    *testing.T
	r    upload.Receiver
	all  []raft.Log
	term uint64
}

// submit appends an entry and applies it.
func (g *log) submit(_ context.Context, k entry.Kind, content []byte) error {
	l := raft.Log{Index: uint64(len(g.all) + 1), Term: g.term, Type: raft.LogCommand, Data: entry.Seal("c", k, content)}
	g.all = append(g.all, l)
	g.r.See(&l)
	switch k {
	case entry.Part:
		refusal, err := g.r.Part(&l, content)
		if err != nil {
			g.t.Fatal(err)
		}
		return refusal
	case entry.Restore:
		w, refusal, err := g.r.Last(content)
		if err != nil {
			g.t.Fatal(err)
		}
		if refusal == nil {
			return g.take(w)
		}
		return refusal
	}
	return nil
}

func (g *log) take(w *upload.Whole) error {
	s, err := w.State("c", uint64(len(g.all)), g.get)
	if err != nil {
		return err
	}
	if _, ok := w.Raise.Body.(command.NewGeneration); !ok {
		g.t.Errorf("it raises with %+v", w.Raise)
	}
	return fmt.Errorf("restored %x", s.Hash())
}

func (g *log) get(i uint64, l *raft.Log) error {
	*l = g.all[i-1]
	return nil
}

var raise = command.Command{Header: command.Header{Cluster: "c", Level: 1, Actor: "coordinator c1"}, Body: command.NewGeneration{Reason: "test"}} // read-only

// image is that of a state with more than one part.
func image(t *testing.T) ([]byte, string) {
	t.Helper()
	s := apply.New()
	bodies := []command.Body{command.InitCluster{ClusterID: "c", Settings: command.DefaultSettings()}}
	for i := range 300 {
		bodies = append(bodies, command.PutMember{Member: command.Member{ID: fmt.Sprint(i), APIAddress: strings.Repeat("a", upload.PartBytes/100), Level: 1}})
	}
	for i, b := range bodies {
		if res := s.Apply(uint64(i+1), command.Command{Header: raise.Header, Body: b}); res.Err != nil {
			t.Fatal(res.Err)
		}
	}
	var out bytes.Buffer
	if err := (archive.Image{View: s.View(), Applied: 7}).Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), fmt.Sprintf("restored %x", s.Hash())
}

// TestSendAndReceive: what is sent is read back, whatever else comes between, and each entry is at most a full one.
func TestSendAndReceive(t *testing.T) {
	img, want := image(t)
	g := &log{t: t, term: 2}
	err := upload.Send(t.Context(), bytes.NewReader(img), raise, func(ctx context.Context, k entry.Kind, content []byte) error {
		if len(content) > entry.Full {
			t.Errorf("an entry of %d bytes", len(content))
		}
		if k == entry.Restore && !g.r.Open() {
			t.Error("nothing is open before the last entry")
		}
		if err := g.submit(ctx, entry.Commands, nil); err != nil {
			return err
		}
		return g.submit(ctx, k, content)
	})
	if err == nil || !strings.HasSuffix(err.Error(), want) || g.r.Open() {
		t.Errorf("got %v, want %s; open %v", err, want, g.r.Open())
	}
	if n := len(g.all); n < 2*4 {
		t.Fatalf("%d entries: the test shows nothing", n)
	}
}

// TestUploadThatIsCut: nothing is restored after another leader, another upload or a long pause came between, and who sent it is
// told so. Where the fate of a part is not known, that of the restore is.
func TestUploadThatIsCut(t *testing.T) {
	img, _ := image(t)
	for name, between := range map[string]func(g *log) error{
		"another leader": func(g *log) error { g.term++; return nil },
		"another upload": func(g *log) error { return g.submit(t.Context(), entry.Part, make([]byte, 100)) },
		"a long pause": func(g *log) error {
			for range 4097 {
				_ = g.submit(t.Context(), entry.Commands, nil)
			}
			return nil
		},
		"a part that may be lost": func(*log) error { return fault.New(fault.UnknownOutcome, "propose", "who knows") },
	} {
		g := &log{t: t, term: 2}
		n := 0
		err := upload.Send(t.Context(), bytes.NewReader(img), raise, func(ctx context.Context, k entry.Kind, content []byte) error {
			if n++; n == 2 {
				if err := between(g); err != nil {
					return err
				}
			}
			return g.submit(ctx, k, content)
		})
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "nothing was restored") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDamagedUpload: entries that cannot be what Send made are damage, and no refusal.
func TestDamagedUpload(t *testing.T) {
	var r upload.Receiver
	l := &raft.Log{Index: 5, Term: 2}
	if _, err := r.Part(l, make([]byte, 19)); !fault.Is(err, fault.Corrupt) {
		t.Errorf("a short part: %v", err)
	}
	for _, n := range []int{51, 52} {
		if _, _, err := r.Last(make([]byte, n)); !fault.Is(err, fault.Corrupt) {
			t.Errorf("a last entry of %d bytes: %v", n, err)
		}
	}
	img, _ := image(t)
	g := &log{t: t, term: 2}
	err := upload.Send(t.Context(), bytes.NewReader(img), raise, func(ctx context.Context, k entry.Kind, content []byte) error {
		if k == entry.Restore {
			g.all[1].Data = entry.Seal("c", entry.Commands) // the second part is gone
		}
		return g.submit(ctx, k, content)
	})
	if !fault.Is(err, fault.Corrupt) {
		t.Errorf("without a part: %v", err)
	}
}
