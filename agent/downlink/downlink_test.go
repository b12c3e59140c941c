package downlink

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// kindOf reads the error's kind from its detail.
func kindOf(err error) string {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return fmt.Sprint(err)
	}
	for _, d := range ce.Details() {
		if v, err := d.Value(); err == nil {
			if e, ok := v.(*farrierv1.ErrorDetail); ok {
				return e.Kind
			}
		}
	}
	return ce.Code().String()
}

func TestLookupClaimsOnce(t *testing.T) {
	t.Parallel()
	r := newRack(t, newCA(t), "a", "rack1")
	r.SetAgents([]*farrierv1.GroupAgent{{Name: "a"}, {Name: "b"}})
	r.assign(t, nil)
	m := newRamdisk(t)
	first, err := m.lookup(r)
	if err != nil {
		t.Fatal(err)
	}
	if first.Node != nodeID || len(first.ChainDer) != 2 || len(first.Agents) != 2 || first.HeartbeatInterval.AsDuration() != DefaultHeartbeat {
		t.Errorf("answer %v", first)
	}
	e := r.edge(t, edgeFirstContact)
	key, err := csrKey(m.csr)
	if err != nil || e.KeyHash != hex.EncodeToString(key[:]) || e.Flow != 7 || e.BootId != bootA || e.Node != nodeID {
		t.Errorf("edge %v", e)
	}
	if id := <-r.claims; id != bootA {
		t.Errorf("claimed %q", id)
	}
	again, err := m.lookup(r)
	if err != nil || !bytes.Equal(again.ChainDer[0], first.ChainDer[0]) {
		t.Errorf("the same key got another answer: %v", err)
	}
	r.noEdge(t)

	r.clock.advance(time.Hour) // a claimed attempt does not run out
	if _, err := m.lookup(r); err != nil {
		t.Errorf("the same key after the attempt's time: %v", err)
	}

	if _, err := newRamdisk(t).lookup(r); kindOf(err) != "denied" {
		t.Errorf("another key: %v", err)
	}
	if e := r.edge(t, edgeSecondClaim); !strings.Contains(e.Detail, "second key") {
		t.Errorf("edge %v", e)
	}
	if _, err := m.lookup(r); kindOf(err) != "denied" {
		t.Errorf("the first key after a second claim: %v", err)
	}
	if _, err := m.to(r).Heartbeat(t.Context(), &farrierv1.HeartbeatRequest{BootId: bootA}); kindOf(err) != "unauthenticated" {
		t.Errorf("a heartbeat without a certificate: %v", err)
	}
}

func TestSecondClaimHaltsTheFirst(t *testing.T) {
	t.Parallel()
	r := newRack(t, newCA(t), "a", "rack1")
	r.assign(t, nil)
	client := newRamdisk(t).enter(r)
	r.edge(t, edgeFirstContact)
	waiting := make(chan *farrierv1.NextCommandResponse, 1)
	go func() {
		resp, _ := client.NextCommand(t.Context(), &farrierv1.NextCommandRequest{BootId: bootA, Wait: durationpb.New(20 * time.Second)})
		waiting <- resp
	}()
	if _, err := newRamdisk(t).lookup(r); kindOf(err) != "denied" {
		t.Fatalf("another key: %v", err)
	}
	r.edge(t, edgeSecondClaim)
	if resp := <-waiting; !resp.GetHalt() {
		t.Errorf("the waiting ramdisk got %v, want halt", resp)
	}
}

func TestLookupRefuses(t *testing.T) {
	t.Parallel()
	m := newRamdisk(t)
	tests := []struct {
		name string
		edit func(*farrierv1.LookupRequest)
		prep func(*rack)
		kind string
	}{
		{"wrong secret", func(q *farrierv1.LookupRequest) { q.Secret = "5ec7e8" }, nil, "unauthenticated"},
		{"no secret", func(q *farrierv1.LookupRequest) { q.Secret = "" }, nil, "unauthenticated"},
		{"unknown boot id", func(q *farrierv1.LookupRequest) { q.BootId = bootB }, nil, "not_found"},
		{"expired", nil, func(r *rack) { r.clock.advance(30 * time.Minute) }, "expired"},
		{"closed", nil, func(r *rack) { r.CloseBoot(bootA) }, "expired"},
		{"replaced", nil, func(r *rack) { r.assign(t, func(a *farrierv1.Assign) { a.Boot.BootId = bootB }) }, "expired"},
		{"handed away", nil, func(r *rack) { r.Unassign(nodeID, 1) }, "not_found"},
		{"another machine", func(q *farrierv1.LookupRequest) { q.Macs = []string{"52:54:00:00:00:02"} }, nil, "denied"},
		{"no MAC", func(q *farrierv1.LookupRequest) { q.Macs = nil }, nil, "invalid"},
		{"no request", func(q *farrierv1.LookupRequest) { q.CsrDer = nil }, nil, "invalid"},
		{"broken request", func(q *farrierv1.LookupRequest) { q.CsrDer = bytes.Clone(q.CsrDer[:50]) }, nil, "invalid"},
		{"too many MACs", func(q *farrierv1.LookupRequest) { q.Macs = make([]string, maxMACs+1) }, nil, "invalid"},
		{"claimed by another key, says the coordinator", nil, func(r *rack) {
			r.assign(t, func(a *farrierv1.Assign) { a.Boot.KeyHash = strings.Repeat("ab", 32) })
		}, "denied"},
		{"too large", func(q *farrierv1.LookupRequest) { q.Version = strings.Repeat("x", maxBody) }, nil, "resource_exhausted"},
	}
	root := newCA(t)
	for _, tt := range tests {
		r := newRack(t, root, "a", "rack1")
		r.assign(t, nil)
		q := &farrierv1.LookupRequest{BootId: bootA, Secret: secret, CsrDer: m.csr, Macs: []string{macA}}
		if tt.edit != nil {
			tt.edit(q)
		}
		if tt.prep != nil {
			tt.prep(r)
		}
		resp, err := m.to(r).Lookup(t.Context(), q)
		if err == nil || kindOf(err) != tt.kind {
			t.Errorf("%s: %v, %v, want %s", tt.name, resp, err, tt.kind)
		}
		select {
		case e := <-r.edges:
			if e.Kind == edgeFirstContact {
				t.Errorf("%s: first contact was reported", tt.name)
			}
		default:
		}
	}
}

func order(step string, attempt uint32, token uint64) *farrierv1.Order {
	return &farrierv1.Order{Ref: &farrierv1.OrderRef{Node: nodeID, Flow: 7, Step: 5, Attempt: attempt, Token: token}, Interface: "deploy",
		Step: step, Executor: "ramdisk", Args: map[string]string{"sha256": "abc"}, BootId: bootA}
}

func deliver(t *testing.T, r *rack, o *farrierv1.Order) {
	t.Helper()
	if err := r.Deliver(o); err != nil {
		t.Fatal(err)
	}
}

func next(have *farrierv1.OrderRef, wait time.Duration) *farrierv1.NextCommandRequest {
	return &farrierv1.NextCommandRequest{BootId: bootA, Have: have, Wait: durationpb.New(wait)}
}

func TestCommandThenOutcome(t *testing.T) {
	t.Parallel()
	r := newRack(t, newCA(t), "a", "rack1")
	r.assign(t, nil)
	client := newRamdisk(t).enter(r)
	ctx := t.Context()
	if resp, err := client.NextCommand(ctx, next(nil, 0)); err != nil || resp.Command != nil || resp.Halt {
		t.Fatalf("with nothing to do: %v, %v", resp, err)
	}
	got := make(chan *farrierv1.NextCommandResponse, 1)
	go func() {
		resp, err := client.NextCommand(ctx, next(nil, 20*time.Second))
		if err != nil {
			t.Error(err)
		}
		got <- resp
	}()
	deliver(t, r, order("write_image", 1, 11))
	cmd := (<-got).GetCommand()
	if cmd.GetStep() != "write_image" || cmd.GetImagePath() != "/images/abc" || cmd.GetRef().GetToken() != 11 {
		t.Fatalf("command %v", cmd)
	}
	// It has the order: nothing new until the token rises.
	if resp, err := client.NextCommand(ctx, next(cmd.Ref, 0)); err != nil || resp.Command != nil {
		t.Errorf("an order that it has came again: %v, %v", resp, err)
	}
	again := order("write_image", 1, 12)
	again.Resumed = true
	deliver(t, r, again)
	resp, err := client.NextCommand(ctx, next(cmd.Ref, 0))
	if err != nil || resp.GetCommand().GetRef().GetToken() != 12 || !resp.GetCommand().GetResumed() {
		t.Errorf("under a higher token: %v, %v", resp, err)
	}

	// The outcome is answered only when it is committed.
	reported := make(chan error, 1)
	outcome := &farrierv1.StepOutcome{Ref: cmd.Ref, Ok: true, Facts: map[string]string{"digest": "abc"}}
	go func() {
		_, err := client.ReportStep(ctx, &farrierv1.ReportStepRequest{BootId: bootA, Outcome: outcome})
		reported <- err
	}()
	up := <-r.outcomes
	if up.BootId != bootA || !up.Ok || up.Facts["digest"] != "abc" {
		t.Errorf("outcome %v", up)
	}
	select {
	case err := <-reported:
		t.Errorf("answered before it was confirmed: %v", err)
	default:
	}
	r.Confirm(up.Ref)
	if err := <-reported; err != nil {
		t.Error(err)
	}
	// A repeat is answered at once, and does not go up again.
	if _, err := client.ReportStep(ctx, &farrierv1.ReportStepRequest{BootId: bootA, Outcome: outcome}); err != nil {
		t.Error(err)
	}
	if len(r.outcomes) != 0 {
		t.Error("a confirmed outcome went up again")
	}
	// The order's repeat is not run again either.
	deliver(t, r, order("write_image", 1, 12))
	if resp, err := client.NextCommand(ctx, next(nil, 0)); err != nil || resp.Command != nil {
		t.Errorf("a confirmed order came again: %v, %v", resp, err)
	}
}

func TestDeliverRefuses(t *testing.T) {
	t.Parallel()
	r := newRack(t, newCA(t), "a", "rack1")
	if err := r.Deliver(order("inventory", 1, 11)); !fault.Is(err, fault.NotFound) {
		t.Errorf("of a node that is not here: %v", err)
	}
	r.assign(t, nil)
	if err := r.Deliver(order("inventory", 1, 9)); err != nil {
		t.Errorf("below the assignment's token, which is that of a lock which another holds meanwhile: %v", err)
	}
	deliver(t, r, order("inventory", 1, 20))
	if err := r.Deliver(order("erase_devices", 2, 19)); !fault.Is(err, fault.StaleToken) {
		t.Errorf("below the newest order's token: %v", err)
	}
	o := order("inventory", 1, 21)
	o.BootId = bootB
	if err := r.Deliver(o); !fault.Is(err, fault.Expired) {
		t.Errorf("of another boot attempt: %v", err)
	}
	if err := r.Assign(assignment(func(a *farrierv1.Assign) { a.Epoch = 0 })); !fault.Is(err, fault.StaleToken) {
		t.Errorf("an older assignment: %v", err)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	r := newRack(t, newCA(t), "a", "rack1")
	r.assign(t, nil)
	client := newRamdisk(t).enter(r)
	o := order("erase_devices", 1, 11)
	if r.Cancel(o.Ref) {
		t.Error("cancelled what was never ordered")
	}
	deliver(t, r, o)
	if resp, err := client.NextCommand(t.Context(), next(nil, 0)); err != nil || resp.GetCommand() == nil {
		t.Fatalf("%v, %v", resp, err)
	}
	if !r.Cancel(o.Ref) {
		t.Error("not cancelled")
	}
	if resp, err := client.NextCommand(t.Context(), next(o.Ref, 0)); err != nil || !resp.GetCommand().GetCancel() {
		t.Errorf("%v, %v, want the cancellation", resp, err)
	}
	if resp, err := client.NextCommand(t.Context(), next(o.Ref, 0)); err != nil || resp.GetCommand() != nil {
		t.Errorf("%v, %v, want nothing: it was just told", resp, err)
	}
	r.clock.advance(cancelResend)
	if resp, err := client.NextCommand(t.Context(), next(o.Ref, 0)); err != nil || !resp.GetCommand().GetCancel() {
		t.Errorf("%v, %v, want to be told again", resp, err)
	}
}

// TestFailover moves a ramdisk from one agent of the group to another, which first knows of the claim by the certificate only.
func TestFailover(t *testing.T) {
	t.Parallel()
	root := newCA(t)
	a, b := newRack(t, root, "a", "rack1"), newRack(t, root, "b", "rack1")
	other := newRack(t, root, "c", "rack2")
	a.assign(t, nil)
	m := newRamdisk(t)
	m.enter(a)
	a.edge(t, edgeFirstContact)

	if _, err := m.to(b).Heartbeat(t.Context(), &farrierv1.HeartbeatRequest{BootId: bootA, Seq: 1}); kindOf(err) != "unavailable" {
		t.Errorf("before the node is there: %v, want unavailable", err)
	}
	b.assign(t, func(as *farrierv1.Assign) { as.Epoch, as.Token = 2, 20 })
	if resp, err := m.to(b).Heartbeat(t.Context(), &farrierv1.HeartbeatRequest{BootId: bootA, Seq: 2}); err != nil || resp.Halt {
		t.Errorf("after it: %v, %v", resp, err)
	}
	if e := b.edge(t, edgeFirstContact); e.BootId != bootA {
		t.Errorf("edge %v", e)
	}
	deliver(t, b, order("write_image", 1, 21))
	if resp, err := m.to(b).NextCommand(t.Context(), next(nil, 0)); err != nil || resp.GetCommand().GetRef().GetToken() != 21 {
		t.Errorf("command at the second agent: %v, %v", resp, err)
	}
	// It may also look up again there: the same key.
	if _, err := m.lookup(b); err != nil {
		t.Errorf("lookup at the second agent: %v", err)
	}
	// A ramdisk of another group is refused, whatever it names.
	other.assign(t, nil)
	if _, err := m.to(other).Heartbeat(t.Context(), &farrierv1.HeartbeatRequest{BootId: bootA}); kindOf(err) != "denied" {
		t.Errorf("at another group's agent: %v, want denied", err)
	}
	// And another ramdisk of the same boot is a second claim, wherever it was let in.
	thief := newRamdisk(t)
	a2 := newRack(t, root, "a2", "rack1")
	a2.assign(t, nil)
	thief.enter(a2)
	if resp, err := thief.to(b).Heartbeat(t.Context(), &farrierv1.HeartbeatRequest{BootId: bootA}); err != nil || !resp.Halt {
		t.Errorf("another key's certificate: %v, %v, want halt", resp, err)
	}
	b.edge(t, edgeSecondClaim)
}

func TestForeignCertificates(t *testing.T) {
	t.Parallel()
	r := newRack(t, newCA(t), "a", "rack1")
	r.assign(t, nil)
	stranger := newRack(t, newCA(t), "a", "rack1") // another cluster
	stranger.assign(t, nil)
	m := newRamdisk(t)
	m.enter(stranger)
	if _, err := m.to(r).Heartbeat(t.Context(), &farrierv1.HeartbeatRequest{BootId: bootA}); err == nil {
		t.Error("another cluster's certificate was accepted")
	}
	// An agent's own certificate is not a ramdisk's.
	agent := &ramdisk{t: t, cert: r.cfg.Store.Certificate()}
	if _, err := agent.to(r).Heartbeat(t.Context(), &farrierv1.HeartbeatRequest{BootId: bootA}); kindOf(err) != "denied" {
		t.Errorf("an agent's certificate: %v, want denied", err)
	}
	m = newRamdisk(t)
	client := m.enter(r)
	if _, err := client.Heartbeat(t.Context(), &farrierv1.HeartbeatRequest{BootId: bootB}); kindOf(err) != "denied" {
		t.Errorf("for another boot attempt: %v, want denied", err)
	}
	if _, err := client.GetManifest(t.Context(), &farrierv1.GetManifestRequest{Sha256: "abc"}); err != nil {
		t.Errorf("manifest: %v", err)
	}
	m.cert = nil
	if _, err := m.to(r).GetManifest(t.Context(), &farrierv1.GetManifestRequest{Sha256: "abc"}); kindOf(err) != "unauthenticated" {
		t.Errorf("manifest without a certificate: %v", err)
	}
}

func TestClosedAttemptHalts(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*rack){
		"flow ended":     func(r *rack) { r.assign(t, func(a *farrierv1.Assign) { a.Boot = nil }) },
		"next attempt":   func(r *rack) { r.assign(t, func(a *farrierv1.Assign) { a.Boot.BootId = bootB }) },
		"closed by name": func(r *rack) { r.CloseBoot(bootA) },
	} {
		r := newRack(t, newCA(t), "a", "rack1")
		r.assign(t, nil)
		client := newRamdisk(t).enter(r)
		waiting := make(chan *farrierv1.NextCommandResponse, 1)
		go func() {
			resp, _ := client.NextCommand(t.Context(), next(nil, 20*time.Second))
			waiting <- resp
		}()
		end(r)
		if resp := <-waiting; !resp.GetHalt() {
			t.Errorf("%s: the waiting ramdisk got %v", name, resp)
		}
		if resp, err := client.Heartbeat(t.Context(), &farrierv1.HeartbeatRequest{BootId: bootA}); err != nil || !resp.Halt {
			t.Errorf("%s: heartbeat %v, %v", name, resp, err)
		}
		if _, err := client.ReportStep(t.Context(), &farrierv1.ReportStepRequest{BootId: bootA, Outcome: &farrierv1.StepOutcome{Ref: order("x", 1, 1).Ref}}); kindOf(err) != "expired" {
			t.Errorf("%s: report %v", name, err)
		}
	}
}

func TestHandedAwayDoesNotHalt(t *testing.T) {
	t.Parallel()
	r := newRack(t, newCA(t), "a", "rack1")
	r.assign(t, nil)
	client := newRamdisk(t).enter(r)
	r.Unassign(nodeID, 1)
	if _, err := client.Heartbeat(t.Context(), &farrierv1.HeartbeatRequest{BootId: bootA}); kindOf(err) != "unavailable" {
		t.Errorf("%v, want unavailable", err)
	}
}

func TestReportRefuses(t *testing.T) {
	t.Parallel()
	r := newRack(t, newCA(t), "a", "rack1")
	r.assign(t, nil)
	client := newRamdisk(t).enter(r)
	ref := order("x", 1, 11).Ref
	foreign := order("x", 1, 11).Ref
	foreign.Node = "node-2"
	for name, tt := range map[string]struct {
		o    *farrierv1.StepOutcome
		kind string
	}{
		"nothing":      {nil, "invalid"},
		"no order":     {&farrierv1.StepOutcome{}, "invalid"},
		"another node": {&farrierv1.StepOutcome{Ref: foreign}, "denied"},
		"another boot": {&farrierv1.StepOutcome{Ref: ref, BootId: bootB}, "invalid"},
	} {
		if _, err := client.ReportStep(t.Context(), &farrierv1.ReportStepRequest{BootId: bootA, Outcome: tt.o}); kindOf(err) != tt.kind {
			t.Errorf("%s: %v, want %s", name, err, tt.kind)
		}
	}
	if len(r.outcomes) != 0 {
		t.Error("a refused outcome went up")
	}
}

// TestOutcomeBeyondBoundsIsAFailure: what no coordinator takes, and no journal holds, ends the step with a cause.
func TestOutcomeBeyondBoundsIsAFailure(t *testing.T) {
	t.Parallel()
	many, wide := map[string]string{}, map[string]string{}
	for i := range maxFacts + 1 {
		many[fmt.Sprint(i)] = ""
	}
	for i := range 13 {
		wide[strings.Repeat("k", i+1)] = strings.Repeat("<", 8000) // in JSON six times as long
	}
	ref := order("x", 1, 11).Ref
	for name, o := range map[string]*farrierv1.StepOutcome{
		"large inventory": {Ref: ref, Ok: true, Inventory: make([]byte, maxInventory+1)},
		"many facts":      {Ref: ref, Ok: true, Facts: many},
		"large facts":     {Ref: ref, Ok: true, Facts: wide},
		"long error":      {Ref: ref, ErrorKind: fault.TooLarge.String(), Error: strings.Repeat("ü", maxText)},
	} {
		if err := checkOutcome(nodeID, bootA, o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if o.Ok || o.ErrorKind != fault.TooLarge.String() || o.Error == "" || len(o.Error) > maxText || !utf8.ValidString(o.Error) || len(o.Facts)+len(o.Inventory) != 0 {
			t.Errorf("%s went up as ok=%v %s with %d facts and %d bytes of error", name, o.Ok, o.ErrorKind, len(o.Facts), len(o.Error))
		}
	}
}

func TestHeartbeats(t *testing.T) {
	t.Parallel()
	r := newRack(t, newCA(t), "a", "rack1")
	r.SetTimes(3*time.Second, 0)
	r.assign(t, nil)
	client := newRamdisk(t).enter(r)
	ref := order("x", 1, 11).Ref
	beat := func(seq uint64) {
		t.Helper()
		resp, err := client.Heartbeat(t.Context(), &farrierv1.HeartbeatRequest{BootId: bootA, Seq: seq, Running: ref, Progress: &farrierv1.Progress{Done: seq}})
		if err != nil || resp.Interval.AsDuration() != 3*time.Second {
			t.Fatalf("%v, %v", resp, err)
		}
	}
	beat(1)
	beat(2)
	beat(1) // arrived late: counted, but its progress is old
	if n := len(r.progress); n != 2 {
		t.Errorf("%d progress reports, want 2", n)
	}
	sum := r.Summary()
	if sum.Beats != 3 || len(sum.Boots) != 1 || sum.Boots[0] != bootA {
		t.Errorf("summary %v", sum)
	}
	if sum = r.Summary(); sum.Beats != 0 || len(sum.Boots) != 0 {
		t.Errorf("the next summary %v", sum)
	}
}

func TestANewerPollEndsAnOlder(t *testing.T) {
	t.Parallel()
	r := newRack(t, newCA(t), "a", "rack1")
	r.assign(t, nil)
	client := newRamdisk(t).enter(r)
	polls := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := client.NextCommand(t.Context(), next(nil, 25*time.Second))
			polls <- err
		}()
	}
	if err := <-polls; err != nil { // one of them, long before its wait
		t.Error(err)
	}
	deliver(t, r, order("inventory", 1, 11))
	if err := <-polls; err != nil {
		t.Error(err)
	}
}

func TestPeerRoles(t *testing.T) {
	t.Parallel()
	if _, err := peerOf(context.WithValue(t.Context(), peerKey{}, identity.Peer{Role: identity.RoleOperator})); !fault.Is(err, fault.Denied) {
		t.Errorf("an operator: %v", err)
	}
}

func TestBodies(t *testing.T) {
	t.Parallel()
	r := newRack(t, newCA(t), "a", "rack1")
	r.assign(t, nil)
	m := newRamdisk(t)
	m.enter(r)
	h1 := m.client(r, false)
	if resp, err := farrierv1connect.NewRamdiskServiceClient(h1, r.url).NextCommand(t.Context(), next(nil, time.Second)); err != nil || resp.Halt {
		t.Errorf("a call by HTTP/1.1 that waits: %v, %v", resp, err)
	}
	for name, tt := range map[string]struct {
		body string
		code int
	}{
		"not JSON":  {"{", http.StatusBadRequest},
		"too large": {`{"boot_id":"` + strings.Repeat("x", 2*maxBody) + `"}`, http.StatusTooManyRequests},
		"empty":     {"{}", http.StatusForbidden},
	} {
		resp, err := h1.Post(r.url+farrierv1connect.RamdiskServiceHeartbeatProcedure, "application/json", strings.NewReader(tt.body))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != tt.code {
			t.Errorf("%s: %d, want %d", name, resp.StatusCode, tt.code)
		}
	}
}
