package work

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/step"
)

var update = flag.Bool("update", false, "rewrite the transcripts")

// TestTranscripts plays each script of testdata: lines that start with ">" are events, the indented lines after
// one are its effects. Run with -update to rewrite them, and review the difference.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("%s differs; got:\n%s", file, got)
			}
		})
	}
}

func play(t *testing.T, script string) string {
	var out strings.Builder
	s, now := New(2), time.Duration(0)
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, " ") {
			continue
		}
		out.WriteString(line)
		words := strings.Fields(strings.TrimPrefix(line, ">"))
		if !strings.HasPrefix(line, ">") {
			continue
		}
		if words[0] == "restart" { // what the journal holds is what was saved
			var records []Record
			for _, id := range s.ids() {
				var r Record
				if kept := s.nodes[id].rec; kept != nil {
					r = *kept
				}
				r.Node, r.Token = id, s.nodes[id].token
				records = append(records, r)
			}
			s = New(2)
			for _, e := range s.Step(now, Restored{records}) {
				fmt.Fprintf(&out, "  %s\n", tell(e))
			}
			continue
		}
		if at, ok := strings.CutPrefix(words[0], "@"); ok {
			d, err := time.ParseDuration(at)
			if err != nil || d < now {
				t.Fatalf("bad time in %q", line)
			}
			now, words = d, words[1:]
		}
		if words[0] == "may" {
			fmt.Fprintf(&out, "  %v\n", s.May(now, ref(t, words[1])))
			continue
		}
		for _, e := range s.Step(now, parse(t, words)) {
			fmt.Fprintf(&out, "  %s\n", tell(e))
		}
	}
	return out.String()
}

// ref reads node/flow/step/attempt.
func ref(t *testing.T, text string) Ref {
	p := strings.Split(text, "/")
	if len(p) != 4 {
		t.Fatalf("bad ref %q", text)
	}
	return Ref{Node: p[0], Flow: num(t, p[1]), Step: uint32(num(t, p[2])), Attempt: uint32(num(t, p[3]))}
}

func num(t *testing.T, text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// arg is the value of key=value among words, or def.
func arg(words []string, key, def string) string {
	for _, w := range words {
		if v, ok := strings.CutPrefix(w, key+"="); ok {
			return v
		}
	}
	return def
}

func parse(t *testing.T, w []string) Event {
	switch w[0] {
	case "greet":
		return Greeted{}
	case "welcome":
		return Welcomed{Session: arg(w, "session", "s1"), TTL: 2 * time.Second, Resumed: arg(w, "resumed", "") != ""}
	case "renewing":
		return Renewing{num(t, w[1])}
	case "renewed":
		return Renewed{num(t, w[1])}
	case "ended":
		return Ended{"told so"}
	case "lost":
		return Lost{}
	case "assign":
		return Assigned{Node: w[1], Token: num(t, arg(w, "token", "0")), Epoch: num(t, arg(w, "epoch", "1"))}
	case "grant":
		return Granted{Node: w[1], Token: num(t, arg(w, "token", "0"))}
	case "unassign":
		return Unassigned{Node: w[1], Epoch: num(t, arg(w, "epoch", "1"))}
	case "synced":
		return Synced{}
	case "order":
		ex, ok := step.ParseExecutor(arg(w, "on", "bmc"))
		if !ok {
			t.Fatalf("bad executor in %v", w)
		}
		return Ordered{Order{Ref: ref(t, w[1]), Token: num(t, arg(w, "token", "1")), Interface: "power", Name: "power_on",
			Class: step.Set, Executor: ex, BootID: arg(w, "boot", ""), Resumed: arg(w, "resumed", "") != ""}}
	case "cancel":
		return Cancelled{ref(t, w[1]), "abort"}
	case "confirm":
		return Confirmed{ref(t, w[1])}
	case "intend":
		return Intending{ref(t, w[1])}
	case "finish":
		return Finished{Outcome{Ref: ref(t, w[1]), Token: num(t, arg(w, "token", "1")), OK: arg(w, "ok", "yes") == "yes", Error: arg(w, "error", ""), Kind: fault.ParseKind(arg(w, "kind", "internal"))}}
	case "reported":
		return Reported{Outcome{Ref: ref(t, w[1]), BootID: arg(w, "boot", ""), OK: arg(w, "ok", "yes") == "yes", Error: arg(w, "error", ""), Kind: fault.ParseKind(arg(w, "kind", "internal"))}}
	case "tick":
		return Ticked{}
	}
	t.Fatalf("unknown event %v", w)
	return nil
}

func tellRef(r Ref) string { return fmt.Sprintf("%s/%d/%d/%d", r.Node, r.Flow, r.Step, r.Attempt) }

func tellOrder(o Order) string {
	s := fmt.Sprintf("%s token=%d", tellRef(o.Ref), o.Token)
	if o.Resumed {
		s += " resumed"
	}
	return s
}

func tellOutcome(o Outcome) string {
	if o.OK {
		return tellRef(o.Ref) + " ok"
	}
	return fmt.Sprintf("%s failed (%s): %s", tellRef(o.Ref), o.Kind, o.Error)
}

func tell(e Effect) string {
	switch e := e.(type) {
	case Lease:
		return fmt.Sprintf("lease until %v", e.Until)
	case Erase:
		return "erase " + e.Node
	case Overflow:
		return "overflow " + e.Node
	case Start:
		return "start " + tellOrder(e.Order)
	case Deliver:
		return "deliver " + tellOrder(e.Order)
	case Retoken:
		return fmt.Sprintf("retoken %s token=%d", tellRef(e.Ref), e.Token)
	case Stop:
		return fmt.Sprintf("stop %s quiet=%v: %s", tellOrder(e.Order), e.Quiet, e.Reason)
	case Report:
		return "report " + tellOutcome(e.Outcome)
	case Save:
		s := fmt.Sprintf("save %s token=%d under=%d intents=%d wait=%v", tellRef(e.Record.Ref), e.Record.Token, e.Record.RanUnder, e.Record.Intents, e.Wait)
		if e.Record.Outcome != nil {
			s += fmt.Sprintf(" outcome ok=%v confirmed=%v", e.Record.Outcome.OK, e.Record.Confirmed)
		}
		return s
	case Forget:
		return fmt.Sprintf("forget %s epoch=%d ack=%v", e.Node, e.Epoch, e.Ack)
	case Reject:
		return fmt.Sprintf("reject %s: %s: %v", tellOutcome(e.Outcome), fault.KindOf(e.Err), e.Err)
	case Refuse:
		return fmt.Sprintf("refuse %s: %s: %v", tellOrder(e.Order), fault.KindOf(e.Err), e.Err)
	}
	return fmt.Sprintf("%T", e)
}
