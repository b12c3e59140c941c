package apply

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/job"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/step"
)

// TestRefusals is one line per command and reason: each gets its typed error and changes nothing.
func TestRefusals(t *testing.T) {
	busy := func(w *world) { w.create(1); w.must(w.verb(nodeID(1), "manage")) }
	managed := func(w *world) { w.create(1); w.to(nodeID(1), "manage") }
	available := func(w *world) { managed(w); w.to(nodeID(1), "provide") }
	active := func(w *world) { available(w); w.to(nodeID(1), "active") }
	upd := func(field string, set func(*node.Node)) command.UpdateNode {
		n := node.Node{ID: nodeID(1), Driver: "fake-hardware", Group: "default"}
		if set != nil {
			set(&n)
		}
		return command.UpdateNode{Node: n, Fields: []string{field}}
	}
	for _, c := range []struct {
		name string
		prep func(*world)
		body command.Body
		kind fault.Kind
	}{
		{"second init", nil, command.InitCluster{ClusterID: cluster, Settings: command.DefaultSettings()}, fault.Exists},
		{"settings without tries", nil, command.UpdateSettings{}, fault.Invalid},
		{"duplicate id", managed, createBody(1), fault.Exists},
		{"duplicate name", managed, command.CreateNode{Node: node.Pack(&node.Node{ID: "x", Name: "n1", Driver: "fake-hardware"})}, fault.Exists},
		{"duplicate MAC", managed, command.CreateNode{Node: node.Pack(&node.Node{ID: "x", Driver: "fake-hardware"}), Ports: []node.Port{{ID: "px", Address: mac(1)}}}, fault.Exists},
		{"wrong MAC", nil, command.CreateNode{Node: node.Pack(&node.Node{ID: "x", Driver: "fake-hardware"}), Ports: []node.Port{{ID: "px", Address: "52:54:00:00:00:zz"}}}, fault.Invalid},
		{"group MAC", nil, command.CreateNode{Node: node.Pack(&node.Node{ID: "x", Driver: "fake-hardware"}), Ports: []node.Port{{ID: "px", Address: "01:00:5e:00:00:01"}}}, fault.Invalid},
		{"unknown driver", nil, command.CreateNode{Node: node.Pack(&node.Node{ID: "x", Driver: "abacus"})}, fault.Invalid},
		{"no id", nil, command.CreateNode{Node: node.Pack(&node.Node{Driver: "fake-hardware"})}, fault.Invalid},
		{"huge node", nil, command.CreateNode{Node: node.Pack(&node.Node{ID: "x", Driver: "fake-hardware", Extra: map[string]string{"a": strings.Repeat("b", state.MaxNodeSize)}})}, fault.TooLarge},
		{"update of nothing", nil, command.UpdateNode{Node: node.Node{ID: "nope"}, Fields: []string{"name"}}, fault.NotFound},
		{"update under a task", busy, upd("name", func(n *node.Node) { n.Name = "z" }), fault.Locked},
		{"old version", managed, command.UpdateNode{Node: node.Node{ID: nodeID(1)}, Fields: []string{"name"}, Version: 1}, fault.VersionConflict},
		{"unknown field", managed, upd("colour", nil), fault.Invalid},
		{"retire an available node", available, upd("retired", func(n *node.Node) { n.Retired = true }), fault.IllegalState},
		{"protect an idle node", available, upd("protected", func(n *node.Node) { n.Protected = true }), fault.IllegalState},
		{"driver of an active node", active, upd("driver", func(n *node.Node) { n.Driver = "redfish" }), fault.IllegalState},
		{"delete an active node", active, command.DeleteNode{Node: nodeID(1)}, fault.IllegalState},
		{"delete under a task", busy, command.DeleteNode{Node: nodeID(1)}, fault.Locked},
		{"port under a task", busy, command.CreatePort{Port: node.Port{ID: "q", Node: nodeID(1), Address: mac(9)}}, fault.Locked},
		{"port of nothing", nil, command.CreatePort{Port: node.Port{ID: "q", Node: "nope", Address: mac(9)}}, fault.NotFound},
		{"port address under an instance", active, command.UpdatePort{Port: node.Port{ID: "p1", Address: mac(7)}, Fields: []string{"address"}}, fault.IllegalState},
		{"delete no port", nil, command.DeletePort{Port: "nope"}, fault.NotFound},
		{"verb nobody knows", managed, command.Provision{Node: nodeID(1), Verb: "dance"}, fault.Invalid},
		{"verb illegal here", managed, command.Provision{Node: nodeID(1), Verb: "active"}, fault.IllegalState},
		{"verb under a task", busy, command.Provision{Node: nodeID(1), Verb: "inspect"}, fault.Locked},
		{"verb without steps", managed, command.Provision{Node: nodeID(1), Verb: "adopt"}, fault.Unsupported},
		{"deploy without image", available, command.Provision{Node: nodeID(1), Verb: "active"}, fault.Invalid},
		{"clean without steps", managed, command.Provision{Node: nodeID(1), Verb: "clean", CleanSteps: []command.CleanStep{{Interface: "deploy", Step: "polish"}}}, fault.Unsupported},
		{"deploy in maintenance", func(w *world) { available(w); w.must(command.SetMaintenance{Node: nodeID(1), On: true}) },
			(&world{}).verb(nodeID(1), "active"), fault.IllegalState},
		{"power nowhere", managed, command.SetPower{Node: nodeID(1), Target: "sideways"}, fault.Invalid},
		{"power under a task", busy, command.SetPower{Node: nodeID(1), Target: "power on"}, fault.Locked},
		{"power while cleaning", func(w *world) { managed(w); w.must(w.verb(nodeID(1), "provide")); w.parkInRamdisk(nodeID(1)) },
			command.SetPower{Node: nodeID(1), Target: "power on"}, fault.IllegalState},
		{"waiver of a tenancy", active, command.WaiveWipe{Node: nodeID(1), Reason: "x"}, fault.IllegalState},
		{"waiver without reason", managed, command.WaiveWipe{Node: nodeID(1)}, fault.Invalid},
		{"lock of nobody", managed, command.AcquireLock{Node: nodeID(1), Session: "nope"}, fault.Expired},
		{"release of another", busy, command.ReleaseLock{Node: nodeID(1), Token: 1}, fault.StaleToken},
		{"break of nothing", managed, command.BreakLock{Node: nodeID(1)}, fault.NotFound},
		{"break of another", busy, command.BreakLock{Node: nodeID(1), Token: 12345}, fault.StaleToken},
		{"close no session", nil, command.CloseSession{Session: "nope"}, fault.NotFound},
		{"drain nobody", nil, command.SetDrain{Agent: "nope", On: true}, fault.NotFound},
		{"remove nobody", nil, command.RemoveAgent{Agent: "nope"}, fault.NotFound},
		{"newer agent", nil, command.OpenSession{Session: "z", Agent: "r9", Journal: "j", Level: state.Level + 1}, fault.Version},
		{"second journal", nil, command.OpenSession{Session: "z", Agent: "r1", Journal: "other", Incarnation: 9}, fault.Exists},
		{"older incarnation", nil, command.OpenSession{Session: "z", Agent: "r1", Journal: "j-r1"}, fault.StaleToken},
		{"token for long", nil, command.CreateJoinToken{ID: "t", Role: "agent", Name: "r2", TTL: 48 * time.Hour}, fault.Invalid},
		{"token of a ramdisk", nil, command.CreateJoinToken{ID: "t", Role: "ramdisk", Name: "r2", TTL: time.Hour}, fault.Invalid},
		{"token that is not", nil, command.UseJoinToken{ID: "t", Role: "agent"}, fault.Expired},
		{"level falls", nil, command.RaiseLevel{Level: state.Level}, fault.Invalid},
		{"member of the past", nil, command.PutMember{Member: command.Member{ID: "c2"}}, fault.Version},
		{"remove no member", nil, command.RemoveMember{ID: "c2"}, fault.NotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.agent("r1", 1)
			if c.prep != nil {
				c.prep(w)
			}
			tables := w.s.tableSums()
			res := w.refused(c.body, c.kind)
			if !slices.Equal(tables, w.s.tableSums()) && alarms(w.s) == 0 {
				t.Error("the refused command changed something")
			}
			if c.kind == fault.Locked {
				var d *fault.LockDetail
				if d, _ = detailOf(res.Err).(*fault.LockDetail); d == nil || d.Holder != "agent r1" || d.Token == 0 || d.Purpose == "" {
					t.Errorf("lock detail %+v", d)
				}
			}
			if err := w.s.invariants(); err != nil {
				t.Error(err)
			}
		})
	}
}

// parkInRamdisk reports successes until the ramdisk works.
func (w *world) parkInRamdisk(id node.ID) {
	w.t.Helper()
	for i := 0; w.flow(id).Step().Executor != step.Ramdisk; i++ {
		if i == 20 {
			w.t.Fatal("the ramdisk is never asked")
		}
		w.must(w.done(id))
	}
}

func TestNoAgent(t *testing.T) {
	w := newWorld(t)
	id := w.create(1)
	if w.node(id).Owner != "" {
		t.Fatal("owned by nobody's agent")
	}
	w.refused(w.verb(id, "manage"), fault.NoAgent)
	w.agent("r1", 1)
	if w.node(id).Owner != "r1" {
		t.Fatal("the agent that came was not given the node")
	}
	w.to(id, "manage")
	w.is(id, "manageable")
}

func TestUpdateFreeFieldsUnderLock(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.must(w.verb(id, "manage"))
	w.must(command.UpdateNode{Node: node.Node{ID: id, Description: "web"}, Fields: []string{"description"}})
	if n := w.node(id); n.Description != "web" || !n.Lock.Held() {
		t.Fatalf("%+v", n)
	}
}

func TestRequestIDs(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := func(seq uint64, digest byte) command.RequestID {
		return command.RequestID{Client: "cl", Seq: seq, Digest: [16]byte{digest}}
	}
	first := w.request(createBody(1), id(1, 1))
	if first.Err != nil {
		t.Fatal(first.Err)
	}
	again := w.request(createBody(1), id(1, 1))
	if again.Err != nil || again.Flags&command.FlagRepeat == 0 || again.Node != first.Node {
		t.Fatalf("repeat: %+v", again)
	}
	if res := w.request(createBody(2), id(1, 2)); !fault.Is(res.Err, fault.Invalid) {
		t.Fatalf("another digest: %v", res.Err)
	}
	w.actor = "operator bob"
	if res := w.request(createBody(2), id(2, 2)); !fault.Is(res.Err, fault.Denied) {
		t.Fatalf("another actor: %v", res.Err)
	}
	w.actor = "operator alice"
	if res := w.request(createBody(1), id(2, 1)); !fault.Is(res.Err, fault.Exists) {
		t.Fatal(res.Err)
	}
	for seq := uint64(3); seq < 3+state.MaxAnswers+5; seq++ { // a refused command is not stored: 2 stays free
		w.request(createBody(int(seq)), id(seq, byte(seq)))
	}
	if res := w.request(createBody(1), id(1, 1)); !fault.Is(res.Err, fault.UnknownOutcome) {
		t.Fatalf("an answer that is gone: %v", res.Err)
	}
	if c := w.s.Client("cl"); c.Count != state.MaxAnswers || w.s.Answers.Len() != state.MaxAnswers {
		t.Fatalf("%d answers are kept, client says %d", w.s.Answers.Len(), c.Count)
	}
	w.ticks(state.ClientIdle, w.s.Agent("r1").Session)
	if c := w.s.Client("cl"); !c.Ended || w.s.Answers.Len() != 0 {
		t.Fatalf("idle client session: %+v", c)
	}
	if res := w.request(createBody(70), id(70, 70)); !fault.Is(res.Err, fault.UnknownOutcome) {
		t.Fatalf("a repeat after the session's end: %v", res.Err)
	}
	if res := w.request(createBody(200), id(200, 200)); res.Err != nil {
		t.Fatalf("a new request after the session's end: %v", res.Err)
	}
}

func TestLocks(t *testing.T) {
	w := newWorld(t)
	session := w.agent("r1", 1)
	id := w.create(1)
	version := w.node(id).Version
	a := w.must(command.AcquireLock{Node: id, Session: session, Holder: "agent r1", Task: "t", Purpose: "power sync"})
	w.refused(command.AcquireLock{Node: id, Session: session}, fault.Locked)
	w.refused(w.verb(id, "manage"), fault.Locked)
	w.must(command.ReleaseLock{Node: id, Token: a.Token})
	b := w.must(command.AcquireLock{Node: id, Session: session, Holder: "agent r1"})
	if b.Token <= a.Token || w.node(id).Version != version {
		t.Fatalf("tokens %s then %s, version %d then %d", a.Token, b.Token, version, w.node(id).Version)
	}
	w.refused(command.ReleaseLock{Node: id, Token: a.Token}, fault.StaleToken)
	w.must(command.BreakLock{Node: id, Token: b.Token, Reason: "stuck"})
	if w.node(id).Lock.Held() {
		t.Fatal("a broken lock without work stays held")
	}
	w.must(w.verb(id, "manage"))
	before := w.node(id).Lock.Token
	w.must(command.BreakLock{Node: id, Reason: "stuck"})
	if n := w.node(id); n.Lock.Token <= before || w.flow(id).Step().Attempt.Token != n.Lock.Token || !w.flow(id).Step().Attempt.Resumed {
		t.Fatalf("work behind a broken lock: %+v", n.Lock)
	}
	w.run(id)
	w.is(id, "manageable")

	// An operator holds the node while the ramdisk works: the flow waits for the lock and then goes on by itself.
	w.must(w.verb(id, "provide"))
	w.parkInRamdisk(id)
	res := w.request(command.AcquireLock{Node: id, Session: "cl", Holder: "operator alice"}, command.RequestID{Client: "cl", Seq: 1})
	if res.Err != nil {
		t.Fatal(res.Err)
	}
	w.run(id)
	if w.node(id).Provision != lifecycle.CleanWait || w.open(id) {
		t.Fatalf("node is %s under an operator's lock", w.node(id).Provision)
	}
	w.must(command.ReleaseLock{Node: id, Token: res.Token})
	if !w.open(id) {
		t.Fatal("the flow does not go on in the entry that released the lock")
	}
	w.run(id)
	w.is(id, "available")
}

func TestClientLockEndsWithItsSession(t *testing.T) {
	w := newWorld(t)
	session := w.agent("r1", 1)
	id := w.create(1)
	w.request(command.AcquireLock{Node: id, Session: "cl", Holder: "operator alice"}, command.RequestID{Client: "cl", Seq: 1})
	if !w.node(id).Lock.Held() {
		t.Fatal("not held")
	}
	w.ticks(10*time.Minute, session)
	w.must(command.Tick{ClientSeen: []string{"cl"}})
	w.ticks(10*time.Minute, session)
	if !w.node(id).Lock.Held() {
		t.Fatal("the lock fell although the client session was used")
	}
	w.ticks(5*time.Minute, session)
	if w.node(id).Lock.Held() {
		t.Fatal("the lock outlives its client session")
	}
}

func TestConcurrencyLimitQueues(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	set := command.DefaultSettings()
	set.MaxDeploy = 2
	w.must(command.UpdateSettings{Settings: set})
	for i := range 5 {
		w.to(w.create(i), "manage", "provide")
	}
	for i := range 5 {
		w.must(w.verb(nodeID(i), "active"))
		w.is(nodeID(i), "deploying")
	}
	if d, _ := w.s.View().Queued(); d != 3 || w.s.jobs.AtWork(flow.LimitDeploy) != 2 {
		t.Fatalf("%d queued, %d run", d, w.s.jobs.AtWork(flow.LimitDeploy))
	}
	w.run(nodeID(0))
	if w.flow(nodeID(2)).Queued() || !w.open(nodeID(2)) || !w.flow(nodeID(3)).Queued() {
		t.Fatal("the oldest queued deploy did not take the free place")
	}
	w.must(w.verb(nodeID(3), "abort"))
	w.is(nodeID(3), "deploy failed")
	set.MaxDeploy = 250
	w.must(command.UpdateSettings{Settings: set})
	for i := range 5 {
		w.run(nodeID(i))
	}
	for i := range 5 {
		if want := "active"; i != 3 {
			w.is(nodeID(i), want)
		}
	}
	if w.s.jobs.AtWork(flow.LimitDeploy) != 0 {
		t.Fatalf("%d deploys are counted, none runs", w.s.jobs.AtWork(flow.LimitDeploy))
	}
}

func TestMaintenancePausesAndContinues(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage", "provide")
	w.must(w.verb(id, "active"))
	w.must(w.done(id)) // power off
	w.must(command.SetMaintenance{Node: id, On: true, Reason: "fan"})
	w.run(id) // the open step ends, no other opens
	n := w.node(id)
	if n.Provision != lifecycle.Deploying || n.Lock.Held() || w.flow(id).Cur != 1 {
		t.Fatalf("paused: %s, lock %+v, step %d", n.Provision, n.Lock, w.flow(id).Cur)
	}
	w.must(command.SetMaintenance{Node: id})
	w.run(id)
	w.is(id, "active")
}

func TestAbort(t *testing.T) {
	for at := range 13 {
		w := newWorld(t)
		w.agent("r1", 1)
		id := w.create(1)
		w.to(id, "manage", "provide")
		w.must(w.verb(id, "active"))
		for range at {
			w.must(w.done(id))
		}
		name := w.flow(id).Step().FullName()
		w.must(w.verb(id, "abort"))
		w.run(id)
		w.is(id, "deploy failed")
		if f := w.flow(id); f.Status != flow.Aborted || !strings.Contains(w.node(id).LastError, "aborted by operator alice") {
			t.Errorf("abort in %s: %s, %q", name, f.Status, w.node(id).LastError)
		}
		if n := w.node(id); n.Power == node.PowerOn {
			t.Errorf("abort in %s leaves the machine on", name)
		}
	}
}

func TestDeleteDuringDeploy(t *testing.T) {
	for at := range 13 {
		w := newWorld(t)
		w.agent("r1", 1)
		id := w.create(1)
		w.to(id, "manage", "provide")
		w.must(w.verb(id, "active"))
		for range at {
			w.must(w.done(id))
		}
		w.must(w.verb(id, "deleted"))
		w.run(id)
		w.is(id, "available")
		if n := w.node(id); n.Instance.UUID != "" || n.Tenanted {
			t.Errorf("after a tear down at step %d: %+v", at, n)
		}
	}
}

func TestTimeouts(t *testing.T) {
	w := newWorld(t)
	session := w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage", "provide")
	w.must(w.verb(id, "active"))
	stale := timeoutOf(w, id)
	if res := w.must(stale); res.Flags&command.FlagLate == 0 {
		t.Fatal("a timeout before its deadline took effect")
	}
	for try := uint32(1); try <= 2*w.s.Root.Settings.StepTries; try++ {
		if got := w.flow(id).Step().Attempt.N; got != try {
			t.Fatalf("attempt %d, want %d", got, try)
		}
		w.ticks(w.flow(id).Step().Attempt.Deadline-w.s.Root.Elapsed, session)
		w.must(timeoutOf(w, id))
	}
	w.run(id)
	w.is(id, "deploy failed")
	if e := w.node(id).LastError; e != "deploy: power.power_off: timed out" {
		t.Fatalf("last error %q", e)
	}

	w.must(w.verb(id, "active"))
	for w.flow(id).Step().Executor != step.Wait {
		w.must(w.done(id))
	}
	w.ticks(w.s.Root.Settings.DeployTimeout, session)
	w.must(timeoutOf(w, id))
	w.run(id)
	w.is(id, "deploy failed")
	if e := w.node(id).LastError; !strings.HasPrefix(e, "deploy: boot.wait_ramdisk: the machine did not call back in time") {
		t.Fatalf("last error %q", e)
	}
}

func TestWipeGuardsAvailable(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage", "provide", "active")
	off := false
	w.must(command.UpdateNode{Node: node.Node{ID: id, AutomatedClean: &off}, Fields: []string{"automated_clean"}})
	w.to(id, "deleted")
	w.is(id, "manageable")
	if n := w.node(id); !n.Tenanted || !strings.Contains(n.LastError, "no wipe") {
		t.Fatalf("%+v", n)
	}
	w.refused(w.verb(id, "provide"), fault.IllegalState)
	w.must(command.WaiveWipe{Node: id, Reason: "disks were shredded"})
	w.to(id, "provide")
	w.is(id, "available")
	if wipe := w.node(id).Wipe; wipe == nil || wipe.Method != "waiver" || wipe.Who != "operator alice" {
		t.Fatalf("%+v", wipe)
	}
	w.to(id, "active")
	if w.node(id).Wipe != nil {
		t.Fatal("the waiver outlives the next tenancy")
	}
}

func TestWrongImageIsNeverActive(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage", "provide")
	w.must(w.verb(id, "active"))
	for w.flow(id).Step().FullName() != flow.StepWriteImage {
		w.must(w.done(id))
	}
	o := w.done(id).(command.Outcome)
	o.Facts = map[string]string{flow.FactDigest: strings.Repeat("cd", 32)}
	w.must(o)
	w.run(id)
	w.is(id, "deploy failed")
	if !strings.HasPrefix(w.node(id).LastError, "deploy: deploy.write_image: the image that was written has digest cdcd") {
		t.Fatal(w.node(id).LastError)
	}
}

func TestSecondClaim(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage", "provide")
	w.must(w.verb(id, "active"))
	w.parkInRamdisk(id)
	boot := w.flow(id).Boot.ID
	w.must(command.Edge{Node: id, Boot: boot, Kind: "first_contact", KeyHash: "another key"})
	n := w.node(id)
	if !n.Maintenance || n.Fault != job.FaultBootClaim || w.flow(id).Boot.ID != "" {
		t.Fatalf("%+v", n)
	}
	w.run(id)
	w.is(id, "deploy failed")
}

func TestWrongMachineFailsTheFlow(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage", "provide")
	w.must(w.verb(id, "active"))
	for w.flow(id).Step().Executor != step.Wait {
		w.must(w.done(id))
	}
	const cause = "another machine has booted: it has system UUID b, while the BMC's is a"
	edge := command.Edge{Node: id, Flow: w.flow(id).ID, Boot: w.flow(id).Boot.ID, Kind: "wrong_machine", Detail: cause}
	w.must(edge)
	if f := w.flow(id); !f.Failing() || f.Boot.Contact {
		t.Fatalf("%+v", f)
	}
	w.must(edge) // it is told until the boot attempt is closed
	w.run(id)
	w.is(id, "deploy failed")
	if n := w.node(id); !strings.Contains(n.LastError, cause) || n.Maintenance {
		t.Fatalf("%+v", n)
	}
}

func TestUnknownCommandsStopTheMember(t *testing.T) {
	defer func() {
		if p, _ := recover().(unknownCommand); !strings.Contains(string(p), "this member is too old") {
			t.Fatalf("recovered %q", p)
		}
	}()
	w := newWorld(t)
	w.try(nil)
}

func TestPanicInsideACommand(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.must(w.verb(id, "manage"))
	broken := w.flow(id).Clone()
	broken.Kind = 99 // no such template: finishing the flow meets what cannot be
	w.s.Flows.Put(&w.s.Log, broken)
	n := w.node(id).Clone()
	n.Provision = lifecycle.Active
	w.s.Nodes.Put(&w.s.Log, n)
	tables := w.s.tableSums()[:4]
	w.refused(command.Outcome{Node: id, Flow: broken.ID, Attempt: 1, Error: "x"}, fault.Internal)
	if !slices.Equal(tables, w.s.tableSums()[:4]) {
		t.Error("a panicking command left changes")
	}
	if !anyAlarm(w, "failed inside") {
		t.Error("no alarm")
	}
}

func TestBatch(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	res := w.must(command.Batch{Commands: []command.Body{createBody(1), createBody(1), createBody(2), command.Batch{}}})
	kinds := []fault.Kind{0, fault.Exists, 0, fault.Invalid}
	for i, r := range res.Results {
		if (r.Err == nil) != (kinds[i] == 0) || r.Err != nil && !fault.Is(r.Err, kinds[i]) {
			t.Errorf("result %d: %v", i, r.Err)
		}
	}
	if res.Count != 2 || w.s.Nodes.Len() != 2 {
		t.Fatalf("%d done, %d nodes", res.Count, w.s.Nodes.Len())
	}
}

func TestJoinTokens(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	w.must(command.CreateJoinToken{ID: "t", Role: "agent", Name: "r2", Hash: [32]byte{1}, TTL: time.Hour})
	w.refused(command.UseJoinToken{ID: "t", Role: "agent", Hash: [32]byte{2}}, fault.Expired)
	w.refused(command.UseJoinToken{ID: "t", Role: "coordinator", Hash: [32]byte{1}}, fault.Expired)
	w.must(command.UseJoinToken{ID: "t", Role: "agent", Hash: [32]byte{1}, Key: [32]byte{7}})
	w.refused(command.UseJoinToken{ID: "t", Role: "agent", Hash: [32]byte{1}}, fault.Expired)
	w.refused(command.UseJoinToken{ID: "t", Role: "agent", Hash: [32]byte{1}, Key: [32]byte{8}}, fault.Expired)
	w.must(command.UseJoinToken{ID: "t", Role: "agent", Hash: [32]byte{1}, Key: [32]byte{7}}) // its join was cut
	w.must(command.CreateJoinToken{ID: "u", Role: "agent", Name: "r1", Hash: [32]byte{1}, TTL: time.Minute})
	w.must(command.RemoveAgent{Agent: "r1"})
	w.refused(command.OpenSession{Session: "z", Agent: "r1", Journal: "j-r1", Incarnation: 2, Level: state.Level}, fault.Denied)
	w.must(command.UseJoinToken{ID: "u", Role: "agent", Hash: [32]byte{1}})
	session := w.agent("r1", 3)
	w.ticks(state.JoinAgain, session)
	w.refused(command.UseJoinToken{ID: "t", Role: "agent", Hash: [32]byte{1}, Key: [32]byte{7}}, fault.Expired)
	w.must(command.CreateJoinToken{ID: "v", Role: "operator", Name: "bob", TTL: time.Minute})
	w.ticks(time.Minute, session)
	if w.s.JoinTokens.Len() != 0 {
		t.Fatal("an expired token is kept")
	}
}

// TestEmptyMemberJoinedUnderALiveName: see the test of that join in membership; two tokens for one name must not do it either.
func TestEmptyMemberJoinedUnderALiveName(t *testing.T) {
	w := newWorld(t)
	for _, id := range []string{"t", "u"} {
		w.must(command.CreateJoinToken{ID: id, Role: "coordinator", Name: "c2", TTL: time.Hour})
	}
	first := command.UseJoinToken{ID: "t", Role: "coordinator", Key: [32]byte{1}}
	w.must(first)
	w.must(command.PutMember{Member: command.Member{ID: "c2", Level: state.Level}})
	w.must(first) // its join was cut
	second := command.UseJoinToken{ID: "u", Role: "coordinator", Key: [32]byte{2}}
	w.refused(second, fault.Exists)
	w.must(command.RemoveMember{ID: "c2"})
	w.must(second)
}

// TestWatchersMissedARestore: they must list again, and are told what happened.
func TestWatchersMissedARestore(t *testing.T) {
	w := newWorld(t)
	if _, _, compacted := w.s.View().Events(state.Position{}, 1); compacted {
		t.Error("a new cluster has lost events")
	}
	w.agent("r1", 1)
	before := w.s.View().Position()
	w.must(command.NewGeneration{Reason: "test"})
	_, floor, compacted := w.s.View().Events(before, 10)
	if !compacted {
		t.Fatal("whoever watched before goes on")
	}
	evs, _, compacted := w.s.View().Events(floor, 10)
	if compacted || len(evs) != 1 || evs[0].Type != state.EventGeneration {
		t.Errorf("from the floor: %v, compacted %v", evs, compacted)
	}
}

func detailOf(err error) any {
	var e *fault.Error
	if errors.As(err, &e) {
		return e.Detail
	}
	return nil
}

// TestMomentaryLocksWashedOutTheWindow: the locks that agents take without a flow are no events, whoever else ends or
// takes one is told of.
func TestMomentaryLocksWashedOutTheWindow(t *testing.T) {
	w := newWorld(t)
	session := w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage", "provide")
	types := func(do func()) (types []string) {
		w.events = nil
		do()
		for _, e := range w.events {
			types = append(types, e.Type)
		}
		return types
	}
	ask := command.AcquireLock{Node: id, Session: session, Holder: "agent r1", Task: "t", Purpose: "power sync"}
	var held command.Result
	if got := types(func() {
		held = w.must(ask)
		w.must(command.ReleaseLock{Node: id, Token: held.Token})
	}); len(got) != 0 {
		t.Errorf("a pair of an agent's is %v", got)
	}
	if got := types(func() { w.must(ask); w.must(command.BreakLock{Node: id, Reason: "stuck"}) }); !slices.Equal(got, []string{state.EventLockBroken}) {
		t.Errorf("a broken lock is %v", got)
	}
	if got := types(func() {
		res := w.request(command.AcquireLock{Node: id, Session: "cl", Holder: "operator alice"}, command.RequestID{Client: "cl", Seq: 1})
		w.must(command.ReleaseLock{Node: id, Token: res.Token})
	}); !slices.Equal(got, []string{state.EventLockGranted, state.EventLockReleased}) {
		t.Errorf("a person's pair is %v", got)
	}
	w.must(ask)
	if got := types(func() { w.must(command.CloseSession{Session: session, Reason: "stopped"}) }); !slices.Contains(got, state.EventLockReleased) {
		t.Errorf("the end of the holder's session is %v", got)
	}
}

// TestRamdiskReportsTheBMCsStep: a ramdisk that says "power off" of the step that was to switch it off is late, and
// does not move the node's power; neither does that fact in the report of a step of its own.
func TestRamdiskReportsTheBMCsStep(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage")
	w.must(w.verb(id, "provide"))
	forged, own := false, false
	for i := 0; w.open(id); i++ {
		f := w.flow(id)
		st := f.Step()
		body := w.done(id)
		switch o, ok := body.(command.Outcome); {
		case ok && st.Executor == step.Ramdisk:
			own = true
			o.Facts = maps.Clone(o.Facts)
			o.Facts[flow.FactPower] = "power off"
			body = o
		case ok && st.FullName() == flow.StepPowerOff && f.Boot.ID != "":
			forged = true
			o.Boot = f.Boot.ID
			if res := w.must(o); res.Flags&command.FlagLate == 0 {
				t.Error("a ramdisk's report of the BMC's step was taken")
			}
			if n := w.node(id); n.Power != node.PowerOn || w.flow(id).Cur != f.Cur {
				t.Errorf("after it the node is %s and its flow at step %d", n.Power, w.flow(id).Cur)
			}
		}
		w.must(body)
		if n := w.node(id); st.Executor == step.Ramdisk && n.Power != node.PowerOn {
			t.Errorf("%s, a step of the ramdisk, left the node %s", st.FullName(), n.Power)
		}
	}
	if w.is(id, "available"); !forged || !own {
		t.Errorf("the flow had a step of the ramdisk: %v, and switched it off: %v", own, forged)
	}
}

// TestAnInstanceOutlivedItsTearDown: a node that was managed out of error is nobody's any more.
func TestAnInstanceOutlivedItsTearDown(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage", "provide", "active")
	w.must(w.verb(id, "deleted"))
	w.must(w.failure(id, false))
	w.is(id, "error")
	if w.node(id).Instance.UUID == "" {
		t.Error("a tear down that failed may be asked for again, of the same instance")
	}
	w.to(id, "manage")
	if n := w.node(id); n.Instance.UUID != "" || !n.Tenanted {
		t.Errorf("instance %q, tenanted %v", n.Instance.UUID, n.Tenanted)
	}
	w.to(id, "provide")
	w.must(command.UpdatePort{Port: node.Port{ID: "p1", Address: mac(7)}, Fields: []string{"address"}})
	w.must(command.DeleteNode{Node: id})
}

// TestADeployAgainDrewAnotherInstance: others know the instance by its id.
func TestADeployAgainDrewAnotherInstance(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage", "provide")
	w.must(w.verb(id, "active"))
	was := w.node(id).Instance.UUID
	w.must(w.failure(id, false))
	w.is(id, "deploy failed")
	w.to(id, "active")
	if got := w.node(id).Instance.UUID; got != was || got == "" {
		t.Errorf("instance %q was %q", got, was)
	}
	w.to(id, "deleted", "active")
	if got := w.node(id).Instance.UUID; got == was {
		t.Error("the next tenant has the instance of the one before")
	}
}

// TestMaintenanceOfTwo: what a person said and what the system said of a node are both kept, until it is over.
func TestMaintenanceOfTwo(t *testing.T) {
	failedClean := func(w *world, id node.ID) {
		w.must(w.verb(id, "provide"))
		w.parkInRamdisk(id)
		w.must(w.failure(id, false))
	}
	is := func(w *world, id node.ID, reason, fault string) {
		t.Helper()
		if n := w.node(id); !n.Maintenance || n.MaintenanceReason != reason || n.Fault != fault {
			t.Errorf("maintenance %v, reason %q, fault %q", n.Maintenance, n.MaintenanceReason, n.Fault)
		}
	}
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage")
	failedClean(w, id)
	w.run(id)
	is(w, id, w.node(id).LastError, job.FaultClean)
	w.must(command.SetMaintenance{Node: id, On: true, Reason: "disk ordered"})
	is(w, id, "disk ordered", job.FaultClean)
	w.must(command.SetMaintenance{Node: id})
	if n := w.node(id); n.Maintenance || n.MaintenanceReason != "" || n.Fault != "" {
		t.Errorf("reason %q and fault %q outlive maintenance", n.MaintenanceReason, n.Fault)
	}
	w.to(id, "manage")
	failedClean(w, id)
	w.must(command.SetMaintenance{Node: id, On: true, Reason: "fan"}) // while the cleanup runs
	w.run(id)
	is(w, id, "fan", job.FaultClean)
}

// TestBootModeChangedUnderTheRamdisk: a state that changes by itself has a boot mode in use.
func TestBootModeChangedUnderTheRamdisk(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage")
	change := command.UpdateNode{Node: node.Node{ID: id, BootMode: "bios"}, Fields: []string{"boot_mode"}}
	w.must(w.verb(id, "inspect"))
	w.parkInRamdisk(id)
	w.is(id, "inspect wait")
	w.refused(change, fault.IllegalState)
	w.must(command.SetMaintenance{Node: id, On: true, Reason: "fan"})
	w.refused(change, fault.IllegalState)
	w.run(id)
	w.must(change)
}

// TestAnUnknownCommandInABatchWasRefused: others apply it.
func TestAnUnknownCommandInABatchWasRefused(t *testing.T) {
	w := newWorld(t)
	defer func() {
		if _, is := recover().(unknownCommand); !is {
			t.Error("the member goes on")
		}
	}()
	w.try(command.Batch{Commands: []command.Body{nil}})
}
