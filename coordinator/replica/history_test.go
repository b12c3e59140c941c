package replica

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/pkg/fault"
)

const lockNode = node.ID("0e4d6d2c-0000-4000-8000-000000000001")

// lockOp is one call on the lock of lockNode.
type lockOp struct {
	kind  string // acquire, release, read
	token lock.Token
}

// lockAnswer is what it came to. Unknown: nobody can say.
type lockAnswer struct {
	ok, unknown bool
	token       lock.Token
}

// lockState is the model: who holds the lock, and the highest token ever granted.
type lockState struct{ held, highest lock.Token }

func lockModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return lockState{} },
		Step: func(state, input, output any) (bool, any) {
			s, in, out := state.(lockState), input.(lockOp), output.(lockAnswer)
			switch in.kind {
			case "acquire":
				if out.ok {
					return s.held == 0 && out.token > s.highest, lockState{out.token, out.token}
				}
				return s.held != 0, s
			case "release":
				if out.ok {
					return s.held == in.token, lockState{0, s.highest}
				}
				return s.held != in.token, s
			default: // a linearizable read
				return out.token == s.held, s
			}
		},
		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v -> %+v", in, out) },
	}
}

// TestLockHistory runs clients that acquire, release and read one lock while leaders are cut off, and checks that some
// order of the calls explains every answer. Calls are repeated with the same request id until an answer is known.
func TestLockHistory(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { lockHistory(t, seed) })
		})
	}
}

func lockHistory(t *testing.T, seed uint64) {
	c := newCluster(t, 3, nil)
	defer c.close()
	lead := c.leader()
	propose(t, lead, command.OpenSession{Session: "s", Agent: "a", Group: "default", Drivers: []string{"fake-hardware"}, Weight: 1, Journal: "00", Incarnation: 1, Level: 1})
	propose(t, lead, command.CreateNode{Node: node.Pack(&node.Node{ID: lockNode, Driver: "fake-hardware", Group: "default"})})

	var mu sync.Mutex
	var history []porcupine.Operation
	start := time.Now()
	var wg sync.WaitGroup
	for client := range 4 {
		wg.Go(func() {
			l := lockClient{c: c, name: fmt.Sprintf("client-%d", client), rnd: rand.New(rand.NewPCG(seed, uint64(client)))}
			for range 12 {
				op := l.next()
				call := time.Since(start).Nanoseconds()
				out := l.do(op)
				ret := time.Since(start).Nanoseconds()
				if out.unknown {
					t.Errorf("%s: no answer to %+v", l.name, op)
					return
				}
				l.settle(op, out)
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: client, Input: op, Call: call, Output: out, Return: ret})
				mu.Unlock()
				time.Sleep(time.Duration(l.rnd.IntN(80)) * time.Millisecond)
			}
		})
	}
	for range 2 { // leaders come and go meanwhile
		time.Sleep(150 * time.Millisecond)
		old := c.leader()
		c.net.Isolate(old.addr)
		c.leader(c.others(old)...)
		time.Sleep(200 * time.Millisecond)
		c.net.Heal(old.addr)
	}
	wg.Wait()
	if len(history) != 48 {
		t.Fatalf("%d calls", len(history))
	}
	if !porcupine.CheckOperations(lockModel(), history) {
		for _, o := range history {
			t.Logf("%d %12d..%12d %s", o.ClientId, o.Call, o.Return, lockModel().DescribeOperation(o.Input, o.Output))
		}
		t.Fatal("no order of the calls explains the answers")
	}
}

// lockClient is one caller with its request ids.
type lockClient struct {
	c    *cluster
	name string
	rnd  *rand.Rand
	seq  uint64
	mine lock.Token
}

func (l *lockClient) next() lockOp {
	switch {
	case l.rnd.IntN(3) == 0:
		return lockOp{kind: "read"}
	case l.mine != 0:
		return lockOp{kind: "release", token: l.mine}
	default:
		return lockOp{kind: "acquire"}
	}
}

func (l *lockClient) settle(op lockOp, out lockAnswer) {
	if op.kind == "release" {
		l.mine = 0
	} else if op.kind == "acquire" && out.ok {
		l.mine = out.token
	}
}

// do asks one member after the other until one answers.
func (l *lockClient) do(op lockOp) lockAnswer {
	l.seq++
	for range 400 {
		m := l.c.members[l.rnd.IntN(len(l.c.members))]
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		out := l.try(ctx, m, op)
		cancel()
		if !out.unknown {
			return out
		}
		time.Sleep(25 * time.Millisecond)
	}
	return lockAnswer{unknown: true}
}

func (l *lockClient) try(ctx context.Context, m *member, op lockOp) lockAnswer {
	if op.kind == "read" {
		index, err := m.ReadIndex(ctx)
		if err == nil {
			err = m.WaitApplied(ctx, index)
		}
		if err != nil {
			return lockAnswer{unknown: true}
		}
		n, ok := m.View().Node(lockNode)
		return lockAnswer{ok: ok, token: n.Lock.Token}
	}
	cmd := command.Command{Header: header("operator " + l.name)}
	cmd.Header.Request = command.RequestID{Client: l.name, Seq: l.seq, Digest: [16]byte{byte(l.seq)}}
	cmd.Body = command.Body(command.AcquireLock{Node: lockNode, Session: l.name, Holder: l.name, Task: "t", Purpose: "p"})
	if op.kind == "release" {
		cmd.Body = command.ReleaseLock{Node: lockNode, Token: op.token}
	}
	res, err := m.Propose(ctx, cmd)
	switch {
	case err != nil:
		return lockAnswer{unknown: true}
	case res[0].Err == nil:
		return lockAnswer{ok: true, token: res[0].Token}
	case fault.Is(res[0].Err, fault.Locked), fault.Is(res[0].Err, fault.StaleToken):
		return lockAnswer{}
	default:
		panic(res[0].Err)
	}
}
