package work

import (
	"fmt"
	"reflect"
	"testing"
)

func order(flow uint64, step, attempt uint32, token uint64) Order {
	return Order{Ref: Ref{Node: "n", Flow: flow, Step: step, Attempt: attempt, Token: token}, Step: "s"}
}

// script is events and the effects that each must have, as text.
type script []struct {
	event Event
	want  string
}

func show(effects []Effect) string {
	s := ""
	for _, e := range effects {
		switch e := e.(type) {
		case Start:
			s += fmt.Sprintf("start %d.%d.%d@%d ", e.Order.Ref.Flow, e.Order.Ref.Step, e.Order.Ref.Attempt, e.Order.Ref.Token)
		case Report:
			s += fmt.Sprintf("report %d.%d.%d@%d ok=%v ", e.Outcome.Ref.Flow, e.Outcome.Ref.Step, e.Outcome.Ref.Attempt, e.Outcome.Ref.Token, e.Outcome.OK)
		case Stop:
			s += "stop "
		case Ignore:
			s += "ignore "
		case Leave:
			s += "leave:" + e.How.String() + " "
		}
	}
	return s
}

func TestScripts(t *testing.T) {
	ok := Finished{Outcome{OK: true}}
	bad := Finished{Outcome{Retryable: true}}
	ref := func(flow uint64, step, attempt uint32, token uint64) Ref {
		return order(flow, step, attempt, token).Ref
	}
	for name, s := range map[string]script{
		"one after the other": {
			{Ordered{order(1, 1, 1, 5)}, "start 1.1.1@5 "}, {ok, "report 1.1.1@5 ok=true "}, {Confirmed{ref(1, 1, 1, 5)}, ""},
			{Ordered{order(1, 2, 1, 6)}, "start 1.2.1@6 "}, {ok, "report 1.2.1@6 ok=true "},
		},
		"a repeat while it runs is taken in": {
			{Ordered{order(1, 1, 1, 5)}, "start 1.1.1@5 "}, {Ordered{order(1, 1, 1, 5)}, ""}, {Ordered{order(1, 1, 1, 9)}, ""},
			{ok, "report 1.1.1@9 ok=true "},
		},
		"another attempt goes on with the same run": {
			{Ordered{order(1, 1, 1, 5)}, "start 1.1.1@5 "}, {Ordered{order(1, 1, 2, 6)}, ""}, {ok, "report 1.1.2@6 ok=true "},
		},
		"a repeat after the end is answered from memory": {
			{Ordered{order(1, 1, 1, 5)}, "start 1.1.1@5 "}, {ok, "report 1.1.1@5 ok=true "},
			{Ordered{order(1, 1, 1, 7)}, "report 1.1.1@7 ok=true "}, {Ordered{order(1, 1, 2, 8)}, "report 1.1.2@8 ok=true "},
		},
		"a failure is repeated as such, and tried again under a new attempt": {
			{Ordered{order(1, 1, 1, 5)}, "start 1.1.1@5 "}, {bad, "report 1.1.1@5 ok=false "},
			{Ordered{order(1, 1, 1, 6)}, "report 1.1.1@6 ok=false "}, {Ordered{order(1, 1, 2, 7)}, "start 1.1.2@7 "},
		},
		"an older token is ignored, never answered": {
			{Ordered{order(1, 1, 1, 5)}, "start 1.1.1@5 "}, {Ordered{order(1, 2, 1, 4)}, "ignore "}, {Cancelled{ref(1, 1, 1, 4)}, "ignore "},
			{ok, "report 1.1.1@5 ok=true "}, {Ordered{order(1, 1, 1, 4)}, "ignore "},
		},
		"a cancelled step tells how it ended": {
			{Ordered{order(1, 1, 1, 5)}, "start 1.1.1@5 "}, {Cancelled{ref(1, 1, 1, 5)}, "stop "}, {Cancelled{ref(1, 1, 1, 5)}, ""},
			{bad, "report 1.1.1@5 ok=false "}, {Cancelled{ref(1, 1, 1, 5)}, ""},
		},
		"another step waits until the running one has stopped": {
			{Ordered{order(1, 1, 1, 5)}, "start 1.1.1@5 "}, {Ordered{order(1, 2, 1, 6)}, "stop "}, {Ordered{order(1, 3, 1, 7)}, ""},
			{bad, "report 1.1.1@5 ok=false start 1.3.1@7 "},
		},
		"ordered again after a cancellation, it starts anew": {
			{Ordered{order(1, 1, 1, 5)}, "start 1.1.1@5 "}, {Cancelled{ref(1, 1, 1, 5)}, "stop "}, {Ordered{order(1, 1, 2, 6)}, ""},
			{bad, "start 1.1.2@6 "}, {ok, "report 1.1.2@6 ok=true "},
		},
		"it leaves when the outcome is confirmed": {
			{Ordered{order(1, 1, 1, 5)}, "start 1.1.1@5 "}, {Finished{Outcome{OK: true, Then: PowerOff}}, "report 1.1.1@5 ok=true "},
			{Confirmed{ref(1, 1, 1, 4)}, ""}, {Confirmed{ref(1, 1, 1, 5)}, "leave:power off "}, {Confirmed{ref(1, 1, 1, 5)}, ""},
		},
		"a failed departure is none": {
			{Ordered{order(1, 1, 1, 5)}, "start 1.1.1@5 "}, {Finished{Outcome{Then: Reboot}}, "report 1.1.1@5 ok=false "}, {Confirmed{ref(1, 1, 1, 5)}, ""},
		},
		"halted at rest":   {{Halted{}, "leave:power off "}, {Halted{}, ""}, {Ordered{order(1, 1, 1, 5)}, "ignore "}},
		"halted at work":   {{Ordered{order(1, 1, 1, 5)}, "start 1.1.1@5 "}, {Halted{}, "stop "}, {bad, "leave:power off "}},
		"nothing finished": {{ok, ""}, {Confirmed{ref(1, 1, 1, 1)}, ""}, {Cancelled{ref(1, 1, 1, 1)}, ""}},
	} {
		var st State
		for i, line := range s {
			if got := show(st.Step(line.event)); got != line.want {
				t.Errorf("%s, line %d (%s): %q, want %q", name, i, reflect.TypeOf(line.event).Name(), got, line.want)
				break
			}
		}
	}
}

func TestHave(t *testing.T) {
	var s State
	if _, ok := s.Have(); ok {
		t.Error("it has something at the start")
	}
	s.Step(Ordered{order(1, 1, 1, 5)})
	if _, ok := s.Running(); !ok || s.Token() != 5 {
		t.Error("nothing runs")
	}
	s.Step(Finished{Outcome{OK: true}})
	if r, ok := s.Have(); !ok || r != order(1, 1, 1, 5).Ref {
		t.Errorf("have %v", r)
	}
	if _, ok := s.Running(); ok {
		t.Error("it still runs")
	}
}
