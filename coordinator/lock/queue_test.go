package lock

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestQueueIsFIFO(t *testing.T) {
	q := NewQueue()
	for id := range uint64(4) {
		if !q.Push(Waiter{ID: id, Node: "n"}) {
			t.Fatalf("waiter %d refused", id)
		}
	}
	q.Push(Waiter{ID: 9, Node: "other"})
	if !q.Drop(1) || q.Drop(1) {
		t.Fatal("a waiter leaves once")
	}
	var served []uint64
	for w, ok := q.Next("n"); ok; w, ok = q.Next("n") {
		served = append(served, w.ID)
		q.Drop(w.ID)
	}
	if !slices.Equal(served, []uint64{0, 2, 3}) {
		t.Errorf("served %v", served)
	}
	if q.Len("n") != 0 || q.Len("other") != 1 || q.Total() != 1 {
		t.Errorf("left: n %d, other %d, total %d", q.Len("n"), q.Len("other"), q.Total())
	}
}

func TestQueueBounds(t *testing.T) {
	q := NewQueue()
	for id := range uint64(MaxPerNode) {
		q.Push(Waiter{ID: id, Node: "n"})
	}
	if q.Push(Waiter{ID: 1000, Node: "n"}) {
		t.Error("the line of a node has no bound")
	}
	if q.Push(Waiter{ID: 0, Node: "m"}) {
		t.Error("one id is queued twice")
	}
	q.total = MaxPerNode
	if q.Push(Waiter{ID: 1001, Node: "m"}) {
		t.Error("the queue has no bound")
	}
	q.Drop(0)
	if !q.Push(Waiter{ID: 1001, Node: "m"}) {
		t.Error("a place that fell free is not given")
	}
}

func TestQueueExpired(t *testing.T) {
	q := NewQueue()
	q.Push(Waiter{ID: 1, Node: "n", Deadline: time.Second})
	q.Push(Waiter{ID: 2, Node: "n", Deadline: 2 * time.Second})
	q.Push(Waiter{ID: 3, Node: "n"}) // patient
	if got := q.Expired(time.Second, 10, nil); !slices.Equal(got, []uint64{1}) {
		t.Errorf("expired at 1 s: %v", got)
	}
	if got := q.Expired(time.Hour, 10, nil); len(got) != 2 {
		t.Errorf("expired at 1 h: %v", got)
	}
	if got := q.Expired(time.Hour, 1, nil); len(got) != 1 {
		t.Errorf("the bound is not kept: %v", got)
	}
}

// Whatever is pushed and dropped, the queue answers as a list per node would.
func TestQueueAgainstLists(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q, model := NewQueue(), map[string][]uint64{}
		q.perNode = 4
		var nextID uint64
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			node := fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "node"))
			if rapid.Bool().Draw(t, "push") {
				nextID++
				want := len(model[node]) < 4
				if got := q.Push(Waiter{ID: nextID, Node: node}); got != want {
					t.Fatalf("push on %d waiters: %v", len(model[node]), got)
				}
				if want {
					model[node] = append(model[node], nextID)
				}
			} else if nextID > 0 {
				id := rapid.Uint64Range(1, nextID).Draw(t, "id")
				q.Drop(id)
				for n := range model {
					model[n] = slices.DeleteFunc(model[n], func(x uint64) bool { return x == id })
				}
			}
			for n, ids := range model {
				w, ok := q.Next(n)
				if ok != (len(ids) > 0) || ok && w.ID != ids[0] || q.Len(n) != len(ids) {
					t.Fatalf("node %s: next %v %v, len %d; want %v", n, w, ok, q.Len(n), ids)
				}
			}
		}
	})
}

func TestToken(t *testing.T) {
	tok := MakeToken(3, 41)
	if tok.Generation() != 3 || tok.Counter() != 41 || tok.String() != "3.41" {
		t.Errorf("token %s: generation %d, counter %d", tok, tok.Generation(), tok.Counter())
	}
	if MakeToken(4, 0) <= MakeToken(3, 1<<48-1) {
		t.Error("a new generation does not rise above all tokens before it")
	}
}

// TestExpiryWasInNoOrder: of many whose wait is over the one that waits longest is told first.
func TestExpiryWasInNoOrder(t *testing.T) {
	q := NewQueue()
	for id := range uint64(100) {
		q.Push(Waiter{ID: id, Node: "n" + string(rune('a'+id%26)), Deadline: time.Duration(id*37%100+1) * time.Second})
	}
	q.Drop(0) // of the first deadline
	var last time.Duration
	ids := q.Expired(50*time.Second, 20, nil)
	for _, id := range ids {
		if d := time.Duration(id*37%100+1) * time.Second; d <= last {
			t.Errorf("%s is told after %s", d, last)
		} else {
			last = d
		}
	}
	if len(ids) != 20 || last != 21*time.Second {
		t.Errorf("%d are told, the last of %s", len(ids), last)
	}
}
