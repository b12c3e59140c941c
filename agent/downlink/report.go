package downlink

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Heartbeat implements the RPC.
func (s *Service) Heartbeat(ctx context.Context, q *farrierv1.HeartbeatRequest) (*farrierv1.HeartbeatResponse, error) {
	a, halt, err := s.caller(ctx, q.BootId)
	if err != nil {
		return nil, connectError(err)
	}
	if halt {
		return &farrierv1.HeartbeatResponse{Halt: true, Interval: durationpb.New(DefaultHeartbeat)}, nil
	}
	s.mu.Lock()
	a.seen(s.clock.Boottime())
	s.beats++
	s.beaten[a.id] = struct{}{}
	fresh := q.Seq > a.lastSeq
	a.lastSeq = max(a.lastSeq, q.Seq)
	resp := &farrierv1.HeartbeatResponse{Interval: durationpb.New(s.heartbeat), Agents: s.agents}
	s.mu.Unlock()
	if fresh && q.Running != nil && q.Progress != nil && q.Running.Node == a.node && len(q.Progress.Text) <= maxText {
		s.cfg.OnProgress(&farrierv1.StepProgress{Ref: q.Running, Progress: q.Progress})
	}
	return resp, nil
}

// ReportStep implements the RPC. It answers when the outcome is committed; a ramdisk that gets no answer, or an
// error of kind unavailable, reports again.
func (s *Service) ReportStep(ctx context.Context, q *farrierv1.ReportStepRequest) (*farrierv1.ReportStepResponse, error) {
	a, halt, err := s.caller(ctx, q.BootId)
	if err == nil && halt {
		err = fault.New(fault.Expired, "report step", "the boot attempt is closed: the outcome changes nothing").WithHelp("stop: the work that booted this machine has ended")
	}
	if err == nil {
		err = checkOutcome(a.node, q.BootId, q.Outcome)
	}
	if err != nil {
		return nil, connectError(err)
	}
	o := q.Outcome
	o.BootId = q.BootId
	s.mu.Lock()
	a.seen(s.clock.Boottime())
	if c := a.command; c != nil && keyOf(c.Ref) == keyOf(o.Ref) {
		if c.Step == "power_off" && !o.Ok {
			a.leaving = false
		}
		a.command = nil
	}
	w := a.waiter(keyOf(o.Ref))
	confirmed := w.ok
	s.mu.Unlock()
	if !confirmed {
		s.cfg.OnOutcome(o)
	}
	t := time.NewTimer(confirmWait)
	defer t.Stop()
	select {
	case <-w.done:
		return &farrierv1.ReportStepResponse{}, nil
	case <-t.C:
	case <-ctx.Done():
	}
	return nil, connectError(fault.New(fault.Unavailable, "report step", "the outcome is not committed yet").
		WithHelp("report it again; the agent keeps what it has"))
}

// checkOutcome refuses what is not this ramdisk's to say. What is larger than the coordinators take becomes a failure
// that says so: the step ends, with a cause that people can read.
func checkOutcome(node, bootID string, o *farrierv1.StepOutcome) error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "report step", format, args...)
	}
	switch {
	case o == nil || o.Ref == nil:
		return bad("no order is named")
	case o.Ref.Node != node:
		return fault.New(fault.Denied, "report step", "the order is another node's")
	case o.BootId != "" && o.BootId != bootID:
		return bad("the outcome names another boot attempt")
	}
	if why := tooLarge(o); why != "" {
		o.Ok, o.Retryable, o.Facts, o.Inventory = false, false, nil, nil
		o.Error, o.ErrorKind = why, fault.TooLarge.String()
	}
	o.Error, o.ErrorKind = clip(o.Error, maxText), clip(o.ErrorKind, maxKind)
	return nil
}

// tooLarge tells why no coordinator would take the outcome, or "".
func tooLarge(o *farrierv1.StepOutcome) string {
	size := 0
	for k, v := range o.Facts {
		size += len(k) + len(v)
	}
	switch {
	case len(o.Inventory) > maxInventory:
		return fmt.Sprintf("the ramdisk's inventory has %d bytes, more than %d", len(o.Inventory), maxInventory)
	case len(o.Facts) > maxFacts:
		return fmt.Sprintf("the ramdisk reported %d facts, more than %d", len(o.Facts), maxFacts)
	case size > maxFactBytes:
		return fmt.Sprintf("the ramdisk reported facts of %d bytes, more than %d", size, maxFactBytes)
	}
	return ""
}

// clip cuts s to at most n bytes, between characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// GetManifest implements the RPC.
func (s *Service) GetManifest(ctx context.Context, q *farrierv1.GetManifestRequest) (*farrierv1.GetManifestResponse, error) {
	if _, err := peerOf(ctx); err != nil {
		return nil, connectError(err)
	}
	if s.cfg.Manifest == nil {
		return nil, connectError(fault.New(fault.NotFound, "get manifest", "this agent has no image cache"))
	}
	m, err := s.cfg.Manifest(q.Sha256)
	if err != nil {
		return nil, connectError(err)
	}
	return m, nil
}
