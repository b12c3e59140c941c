package uplink

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/farrier-project/farrier/agent/task"
	"github.com/farrier-project/farrier/agent/work"
	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
)

// TestManyLargeOutcomesFitIntoRequests: outcomes of more than 16 MiB, in hello as in a batch of a stream that lives,
// broke every stream for ever, also after a restart.
func TestManyLargeOutcomesFitIntoRequests(t *testing.T) {
	const coordinatorReads = 16 << 20
	for _, tt := range []struct{ many, size int }{{140, 120 << 10}, {1100, 16 << 10}, {3, 100}} {
		u := New(Config{})
		var h task.Holding
		for i := range tt.many {
			h.Unconfirmed = append(h.Unconfirmed, work.Outcome{Ref: work.Ref{Node: fmt.Sprint(i)}, OK: true, Inventory: make([]byte, tt.size)})
		}
		said, rest := u.hello(h)
		first := []*farrierv1.AgentMessage{{Body: &farrierv1.AgentMessage_Hello{Hello: said}}}
		if n := proto.Size(&farrierv1.ConnectRequest{Messages: first}); n > coordinatorReads {
			t.Errorf("hello with %d outcomes of %d bytes has %d", tt.many, tt.size, n)
		}
		u.out.open()
		for _, o := range rest {
			u.Report(o)
		}
		got := len(said.GetOutcomes())
		for batch := u.out.take(maxBatch); len(batch) > 0; batch = u.out.take(maxBatch) {
			if n := proto.Size(&farrierv1.ConnectRequest{Messages: batch}); n > coordinatorReads {
				t.Errorf("a batch of %d messages has %d bytes", len(batch), n)
			}
			for _, m := range batch {
				if node := m.GetOutcome().GetRef().GetNode(); node != fmt.Sprint(got) {
					t.Errorf("outcome of node %s in the place of %d", node, got)
				}
				got++
			}
		}
		if got != tt.many {
			t.Errorf("%d of %d outcomes were said", got, tt.many)
		}
	}
}

// TestSilenceThatIsOverIsNotSaidAgain: a rack that was cut off told, minutes later, of a silence that had ended, and the
// machine was rebooted in the middle of its image.
func TestSilenceThatIsOverIsNotSaidAgain(t *testing.T) {
	u := New(Config{})
	for _, kind := range []string{"first_contact", "silent", "heard", "silent", "heard"} {
		u.Edge(Edge{Node: "n1", BootID: "b", Kind: kind})
	}
	u.Edge(Edge{Node: "n2", BootID: "b2", Kind: "silent"})
	u.out.open()
	u.out.settle("n1", "b")
	u.out.repeatEdges()
	got := map[string]string{}
	for _, m := range u.out.take(9) {
		got[m.GetEdge().GetNode()] += " " + m.GetEdge().GetKind()
	}
	if got["n1"] != " first_contact heard" || got["n2"] != " silent" {
		t.Errorf("said again: %v", got)
	}
}

// TestLockWhoseCallerLeftIsGivenBack: a grant that nobody waited for any more was dropped, and the node stayed locked for
// as long as the session lived.
func TestLockWhoseCallerLeftIsGivenBack(t *testing.T) {
	u := New(Config{})
	u.out.open()
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := u.Lock(ctx, "n1", "t", "p", task.Wait{Patient: true})
		done <- err
	}()
	<-u.out.wake
	leave()
	if err := <-done; !fault.Is(err, fault.UnknownOutcome) {
		t.Errorf("Lock: %v", err)
	}
	asked := u.out.take(9)
	if len(asked) != 1 || asked[0].GetLockRequest() == nil {
		t.Fatalf("asked: %v", asked)
	}
	u.calls.answer(&farrierv1.LockReply{Call: asked[0].GetLockRequest().GetCall(), Token: 42})
	said := u.out.take(9)
	if len(said) != 1 || said[0].GetLockRelease().GetNode() != "n1" || said[0].GetLockRelease().GetToken() != 42 {
		t.Errorf("after the late grant the agent says %v", said)
	}
	if len(said) == 1 {
		u.calls.answer(&farrierv1.LockReply{Call: said[0].GetLockRelease().GetCall()})
	}
	if len(u.calls.open) != 0 {
		t.Errorf("%d calls are open", len(u.calls.open))
	}
}
