package view

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

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

func TestBarShowsWhatThereIsRoomFor(t *testing.T) {
	pr := &farrierv1.Progress{Done: 128 << 20, Total: 256 << 20, Rate: 64 << 20, Skipped: 1 << 20}
	for room, want := range map[int]string{
		200: "[████████████░░░░░░░░░░░░]  50%  2s left  128.0 MiB of 256.0 MiB  64.0 MiB/s  (1.0 MiB in place or zero)",
		90:  "[████████████░░░░░░░░░░░░]  50%  2s left  128.0 MiB of 256.0 MiB  64.0 MiB/s",
		55:  "[██████░░░░░░]  50%  2s left  128.0 MiB of 256.0 MiB",
		20:  "[██████░░░░░░]  50%",
		4:   " 50%",
	} {
		if got := Bar(pr, room); got != want {
			t.Errorf("room for %d: got  %q, want %q", room, got, want)
		}
	}
	if Bar(nil, 80) != "" {
		t.Error("no progress is not empty")
	}
}

// TestALongWriteWasSilentWithoutATerminal: each change is said once, and progress every ten seconds.
func TestALongWriteWasSilentWithoutATerminal(t *testing.T) {
	var out bytes.Buffer
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	l := Live{Out: &out, Now: func() time.Time { return now }}
	n := deployOf(1, 0)
	st := n.Flow.Working
	st.Attempt = 1
	l.Show(n)
	l.Show(n)
	st.Attempt = 2
	l.Show(n)
	st.Progress = &farrierv1.Progress{Done: 64 << 20, Total: 256 << 20}
	l.Show(n)
	now = now.Add(10 * time.Second)
	l.Show(n)
	l.Show(n)
	n.Maintenance, n.Fault = true, "boot claim"
	l.Show(n)
	n.Maintenance, n.Flow.Queued = false, true
	l.Show(n)
	n.Flow.State, n.Flow.Working, n.ProvisionState, n.LastError = "failed", nil, "deploy failed", "no disk"
	l.Show(n)
	want := `03:04:05  web-1  deploying  deploy.write_image
03:04:05  web-1  deploying  deploy.write_image (attempt 2)
03:04:15  web-1  deploying  deploy.write_image (attempt 2)   25%  64.0 MiB of 256.0 MiB
03:04:15  web-1  deploying  deploy.write_image (attempt 2)  paused: maintenance, boot claim
03:04:15  web-1  deploying  deploy.write_image (attempt 2)  queued: the limit of open flows is reached
03:04:15  web-1  deploy failed  no disk
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// TestAnEmptyListWasNoList: programs look for fields, and jq fails on those that are not there.
func TestAnEmptyListWasNoList(t *testing.T) {
	var j bytes.Buffer
	p := Printer{Out: &j, Format: JSON}
	for _, m := range []proto.Message{&farrierv1.ListLocksResponse{}, &farrierv1.ListNodesResponse{}, &farrierv1.Port{Address: "x"}} {
		if err := p.Message(m, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Line(&farrierv1.Flow{Id: 3}); err != nil {
		t.Fatal(err)
	}
	want := `{
  "locks": []
}
{
  "index": "0",
  "next_page_token": "",
  "nodes": [],
  "total": "0"
}
{
  "address": "x",
  "id": "",
  "ip": "",
  "name": "",
  "node": "",
  "node_name": "",
  "pxe_enabled": false,
  "version": "0"
}
{"abort_requested":false,"boot_id":"","boots":0,"current":0,"error":"","id":"3","kind":"","queued":false,"state":"","steps":[]}
`
	if j.String() != want {
		t.Errorf("got\n%s\nwant\n%s", j.String(), want)
	}
}
