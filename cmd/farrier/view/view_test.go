package view

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
)

func TestRowsAlignAndEscape(t *testing.T) {
	var out bytes.Buffer
	Printer{Out: &out}.Rows([]string{"NAME", "STATE"}, [][]string{{"web-1", "active"}, {"a-longer-name", "x\x1b[2Jy"}})
	want := "NAME           STATE\nweb-1          active\na-longer-name  x\\x1b[2Jy\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestMessageIsStableJSONAndYAML(t *testing.T) {
	n := &farrierv1.Node{Id: "1", Name: "web-1", ProvisionState: "wait call-back", Version: 7}
	var j, y bytes.Buffer
	if err := (Printer{Out: &j, Format: JSON}).Message(n, nil); err != nil {
		t.Fatal(err)
	}
	var back map[string]any
	if err := json.Unmarshal(j.Bytes(), &back); err != nil || back["provision_state"] != "wait call-back" {
		t.Errorf("json: %v\n%s", err, j.String())
	}
	if err := (Printer{Out: &y, Format: YAML}).Message(n, nil); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(y.String(), "provision_state: wait call-back\n") {
		t.Errorf("yaml:\n%s", y.String())
	}
}

func TestBarShowsBytesRateAndTimeLeft(t *testing.T) {
	got := Bar(&farrierv1.Progress{Done: 128 << 20, Total: 256 << 20, Rate: 64 << 20, Skipped: 1 << 20})
	want := "[████████████░░░░░░░░░░░░]  50%  128.0 MiB of 256.0 MiB  64.0 MiB/s  2s left  (1.0 MiB in place or zero)"
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if Bar(nil) != "" {
		t.Error("no progress is not empty")
	}
}

func TestLiveSaysEachChangeOnceWithoutATerminal(t *testing.T) {
	var out bytes.Buffer
	l := Live{Out: &out, Now: func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }}
	n := &farrierv1.Node{Name: "web-1", ProvisionState: "deploying", Flow: &farrierv1.Flow{Id: 1, State: "open",
		Steps: []*farrierv1.Step{{Interface: "power", Name: "power_off", State: "running", Attempt: 1}}}}
	l.Show(n)
	l.Show(n)
	n.Flow.Steps[0].Attempt = 2
	l.Show(n)
	want := "03:04:05  web-1  deploying  power.power_off\n03:04:05  web-1  deploying  power.power_off (attempt 2)\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
