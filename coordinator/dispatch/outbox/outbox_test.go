package outbox

import (
	"errors"
	"testing"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
)

func message(seq uint64) *farrierv1.CoordinatorMessage {
	return &farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Renewed{Renewed: &farrierv1.Renewed{Seq: seq}}}
}

func many(n int) []*farrierv1.CoordinatorMessage {
	all := make([]*farrierv1.CoordinatorMessage, n)
	for i := range all {
		all[i] = message(uint64(i))
	}
	return all
}

func TestMessagesComeInOrderAndTheLastOneLast(t *testing.T) {
	o := New()
	o.Put(message(1), message(2))
	o.End(message(3))
	o.Put(message(4)) // too late
	<-o.More()
	var got []uint64
	var over error
	for over == nil {
		var some []*farrierv1.CoordinatorMessage
		some, _, over = o.Take(2)
		if len(some) == 0 && over == nil {
			t.Fatal("it is empty and not over")
		}
		for _, m := range some {
			got = append(got, m.GetRenewed().Seq)
		}
	}
	if len(got) != 3 || got[0] != 1 || got[2] != 3 || !errors.Is(over, ErrEnded) {
		t.Errorf("took %v, then %v", got, over)
	}
}

func TestFullOutboxIsNotRoomyUntilHalfOfItIsTaken(t *testing.T) {
	o := New()
	o.Put(many(high)...)
	if o.Roomy() {
		t.Fatal("it has room")
	}
	if _, drained, _ := o.Take(high / 2); drained {
		t.Error("half of it is left, and it says that there is room")
	}
	if _, drained, _ := o.Take(1); !drained || !o.Roomy() {
		t.Error("less than half is left, and nobody is told")
	}
	if _, drained, _ := o.Take(1); drained {
		t.Error("nobody waits for room, and it tells of it")
	}
}

func TestOutboxThatRunsOverEnds(t *testing.T) {
	o := New()
	o.Put(many(most)...)
	o.Put(message(0))
	if some, _, over := o.Take(1); len(some) != 0 || !fault.Is(over, fault.Busy) {
		t.Errorf("took %d messages, %v", len(some), over)
	}
}

func TestOneTakeIsBoundedInBytes(t *testing.T) {
	o := New()
	large := func() *farrierv1.CoordinatorMessage {
		return &farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Assign{
			Assign: &farrierv1.Assign{DriverInfo: map[string]string{"x": string(make([]byte, mostBytes*2/3))}}}}
	}
	huge := &farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Order{
		Order: &farrierv1.Order{SecretArgs: make([]byte, 2*mostBytes)}}}
	o.Put(large(), large(), huge, large())
	for i := range 4 {
		if some, _, _ := o.Take(10); len(some) != 1 {
			t.Errorf("take %d: %d messages", i, len(some))
		}
	}
}
