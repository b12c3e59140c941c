package plan

import (
	"encoding/json"
	"time"

	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/step"
)

// Work is an order that ought to be at the node's owner now. (Node, Flow, Step, Attempt, Token) identifies it:
// when any of them changes, the earlier order is to be cancelled.
type Work struct {
	Node           node.ID
	Agent, Session string // the owner and its session
	Flow           flow.ID
	Step           int
	Attempt        uint32
	Token          lock.Token

	Interface, Name string
	Class           step.Class
	Executor        step.Executor // BMC, Agent or Ramdisk
	Args            map[string]string
	Secrets         map[string]node.Sealed // secret_args to unseal, with aad "node/<id>/<name>"
	Clear           map[string]string      // secret_args that need no unsealing: meta_data, JSON
	Boot            string                 // boot id, of a ramdisk step
	Resumed         bool                   // read the world first
	Deadline        time.Duration          // left of the attempt; 0: none
	CallDeadline    time.Duration          // for one changing BMC call; 0: the step makes none
}

// mayRun tells whether somebody should be running the step's attempt.
func mayRun(st *flow.Step, now time.Duration) bool {
	return st != nil && st.Attempt.Open && st.Executor != step.Wait && st.Attempt.NotBefore <= now &&
		!(st.Class == step.OneShot && st.Attempt.Resumed)
}

// Order is the work that the node's owner should have now. ok is false when there is none: no attempt is open,
// the attempt waits for the ramdisk's first contact, NotBefore has not passed, the node has no live owner, the previous
// owner has not yet let go, or the attempt is of a one-shot step that an earlier owner may have run: its outcome may
// still be reported, from a journal, until the deadline; nobody runs it again.
func Order(v *state.View, id node.ID) (w Work, ok bool) {
	n, found := v.Node(id)
	if !found || !n.FlowOpen || n.Owner == "" || n.PrevOwner != "" {
		return Work{}, false
	}
	f, found := v.Flow(n.Flow)
	if !found || !f.Open() {
		return Work{}, false
	}
	st := f.Step()
	if !mayRun(st, v.Elapsed()) {
		return Work{}, false
	}
	owner, found := v.Agent(n.Owner)
	if !found || owner.Session == "" {
		return Work{}, false
	}
	w = Work{
		Node: n.ID, Agent: owner.Name, Session: owner.Session, Flow: f.ID, Step: f.Cur,
		Attempt: st.Attempt.N, Token: st.Attempt.Token,
		Interface: st.Interface, Name: st.Name, Class: st.Class, Executor: st.Executor, Args: st.Args,
		Boot: st.Attempt.Boot, Resumed: st.Attempt.Resumed, CallDeadline: st.Attempt.CallDeadline,
	}
	if st.Attempt.Deadline > 0 {
		w.Deadline = max(st.Attempt.Deadline-v.Elapsed(), time.Millisecond)
	}
	if len(st.SecretArgs) > 0 {
		w.Secrets, w.Clear = secretArgs(n, st.SecretArgs)
	}
	return w, true
}

func secretArgs(n *node.Node, names []string) (map[string]node.Sealed, map[string]string) {
	sealed := map[string]node.Sealed{}
	for _, name := range names {
		switch box := n.Instance.UserData; name {
		case "network_data":
			if box = n.Instance.NetworkData; len(box.Box) > 0 {
				sealed[name] = box
			}
		case "user_data":
			if len(box.Box) > 0 {
				sealed[name] = box
			}
		}
	}
	return sealed, map[string]string{"meta_data": metaData(n)}
}

// metaData is meta_data.json of the config drive, in OpenStack's format; keys are sorted.
func metaData(n *node.Node) string {
	meta := map[string]any{"uuid": n.ID, "name": n.Name} // Ironic gives the node too, not the instance
	if n.Instance.Hostname != "" {
		meta["hostname"] = n.Instance.Hostname
	} else if n.Name != "" {
		meta["hostname"] = n.Name
	}
	if len(n.Instance.MetaData) > 0 {
		meta["meta"] = n.Instance.MetaData
	}
	text, err := json.Marshal(meta)
	if err != nil {
		panic("plan: a map of texts has no JSON form: " + err.Error())
	}
	return string(text)
}
