package gate

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/farrier-project/farrier/coordinator/apply"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/leader"
	"github.com/farrier-project/farrier/coordinator/state"
)

// elections is a member of a cluster whose leader is chosen by the test.
type elections struct {
	mu     sync.Mutex // guards leader
	leader string
	view   *state.View
	asked  chan struct{} // closed when somebody asked who leads
	once   sync.Once
}

func (e *elections) lead(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leader = id
}

func (e *elections) View() *state.View { return e.view }

func (e *elections) ReadIndex(context.Context) (uint64, error) { return 0, nil }

func (e *elections) Leading() (uint64, bool) { return 1, false }

func (e *elections) Leader() (string, string, bool) {
	e.once.Do(func() { close(e.asked) })
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.leader, "", true
}

// twoMembers is a state that knows c1 and c3.
func twoMembers() *state.View {
	s := apply.New()
	for i, body := range []command.Body{command.InitCluster{ClusterID: "c0ffee", Settings: command.DefaultSettings()},
		command.PutMember{Member: command.Member{ID: "c1", RaftAddress: "a:1", APIAddress: "a:2", RackAddress: "a:3", Level: 1}},
		command.PutMember{Member: command.Member{ID: "c3", RaftAddress: "c:1", APIAddress: "c:2", RackAddress: "c:3", Level: 1}}} {
		s.Apply(uint64(i+1), command.Command{Header: command.Header{Cluster: "c0ffee", Level: 1}, Body: body})
	}
	return s.View()
}

// cutting answers with a body that the end of the leader's term cuts short, once.
type cutting struct {
	turn  func() // another leader is known
	whole string
	tries int
}

func (c *cutting) RoundTrip(req *http.Request) (*http.Response, error) {
	c.tries++
	body := io.Reader(bytes.NewReader([]byte(c.whole)))
	if c.tries == 1 {
		body = io.MultiReader(bytes.NewReader([]byte(c.whole[:3])), readerFunc(func([]byte) (int, error) {
			c.turn()
			<-req.Context().Done()
			return 0, req.Context().Err()
		}))
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(body)}, nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestAnswerCutByTheEndOfATerm: the header of an answer had come when another leader became known, and the caller got
// half an answer and a broken stream.
func TestAnswerCutByTheEndOfATerm(t *testing.T) {
	r := &elections{view: twoMembers(), leader: "c1", asked: make(chan struct{})}
	find := leader.New(leader.Config{Self: "c2", Reader: r, Wait: time.Minute})
	wake, over := make(chan struct{}, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { over <- find.Run(ctx, wake) }()
	defer func() {
		cancel()
		<-over
	}()
	<-r.asked // Run knows the leader of before
	c := &cutting{turn: func() {
		r.lead("c3")
		wake <- struct{}{}
	}, whole: "the whole answer"}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://leader/x", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := attempts{leader: find, transport: c, repeat: true}.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(res.Body)
	if err != nil || string(got) != c.whole || c.tries != 2 {
		t.Errorf("%q after %d tries, %v", got, c.tries, err)
	}
}
