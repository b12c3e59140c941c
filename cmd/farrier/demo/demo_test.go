package demo

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
)

func TestClaim(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	release, err := claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, "run", "left")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := claim(dir); !fault.Is(err, fault.Busy) {
		t.Errorf("a second demonstration in the same directory: %v, want busy", err)
	}
	if _, err := os.Stat(left); err != nil {
		t.Error("the second demonstration cleared the first one's files")
	}
	release()
	release, err = claim(dir)
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	defer release()
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Error("what an earlier run left was not cleared")
	}
}

func TestOptions(t *testing.T) {
	o, err := Options{}.complete()
	if err != nil || o.Machines != 4 || o.Timeout != 120*time.Second || !filepath.IsAbs(o.Dir) || !filepath.IsAbs(o.Bin) {
		t.Errorf("complete() = %+v, %v", o, err)
	}
	for _, n := range []int{-1, 17} {
		if _, err := (Options{Machines: n}).complete(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%d machines: %v", n, err)
		}
	}
}

func TestUntil(t *testing.T) {
	states := make(chan string, 8)
	for _, s := range []string{"verifying", "manageable", "inspecting", "inspect wait", "inspect failed"} {
		states <- s
	}
	if err := until(t.Context(), states, "manageable", "enroll"); err != nil {
		t.Errorf("manage: %v", err)
	}
	if err := until(t.Context(), states, "manageable", "inspect failed"); !errors.Is(err, errFailed) {
		t.Errorf("inspect: %v, want failure", err)
	}
	late := errors.New("too late")
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, late)
	defer cancel()
	if err := until(ctx, states, "available", "clean failed"); !errors.Is(err, late) {
		t.Errorf("provide: %v, want the cause", err)
	}
}

// TestEvents tells a step with its time, an attempt that failed, and a new owner.
func TestEvents(t *testing.T) {
	var out bytes.Buffer
	d := &demo{o: Options{Out: &out}, began: time.Now()}
	states := d.follow("m1")
	at := time.Unix(1000, 0)
	tell := func(kind string, after time.Duration, fields map[string]string) {
		d.event(&farrierv1.Event{Type: kind, Node: "id", NodeName: "m1", At: timestamppb.New(at.Add(after)), Fields: fields})
	}
	step := func(state string) map[string]string {
		return map[string]string{"flow": "1", "step": "2", "kind": "deploy", "name": "deploy.write_image", "state": state, "error": "cut"}
	}
	tell("flow.step", 0, step("opened"))
	tell("flow.step", time.Second, step("retry"))
	tell("flow.step", time.Second, step("opened"))
	tell("flow.step", 3500*time.Millisecond, step("done"))
	tell("node.owner", 0, map[string]string{"from": "rack1-a", "to": "rack1-b", "reason": "session ended"})
	tell("node.provision_state", 0, map[string]string{"to": "active"})
	for _, want := range []string{"deploy.write_image (simulated) retry: cut", "2.50 s", "moves from rack1-a to rack1-b: session ended"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not told in:\n%s", want, out.String())
		}
	}
	if got := <-states; got != "active" {
		t.Errorf("the state is %q", got)
	}
}
