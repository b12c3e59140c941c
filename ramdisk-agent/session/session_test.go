package session

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/identity"
)

// group is what the agents of a group share: the coordinator's orders, and what was reported.
type group struct {
	t        *testing.T
	root     *identity.CA
	file     []byte
	manifest *farrierv1.GetManifestResponse

	mu       sync.Mutex
	agents   []*fakeAgent
	queue    []*farrierv1.RamdiskCommand // not answered yet; the first is offered until it is
	outcomes []*farrierv1.StepOutcome
	macs     []string
	beats    int
	halt     bool
	lookups  int
	changed  chan struct{} // closed at each change
}

// fakeAgent is one rack agent on a loopback port.
type fakeAgent struct {
	farrierv1connect.UnimplementedRamdiskServiceHandler
	g      *group
	server *httptest.Server
	plain  *httptest.Server
	ca     *identity.CA
	info   *farrierv1.GroupAgent
	deaf   bool          // NextCommand answers empty at once
	choke  int64         // an image body is cut after so many bytes, once; 0: never
	cut    chan struct{} // closed when it was
}

const bootID = "00112233445566778899aabbccddeeff"

func newGroup(t *testing.T, names ...string) *group {
	root, err := identity.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	g := &group{t: t, root: root, changed: make(chan struct{})}
	for _, name := range names {
		g.agents = append(g.agents, g.newAgent(name))
	}
	return g
}

func (g *group) newAgent(name string) *fakeAgent {
	g.t.Helper()
	fatal := func(err error) {
		if err != nil {
			g.t.Fatal(err)
		}
	}
	peer := identity.Peer{Cluster: "test", Role: identity.RoleAgent, Name: name, Group: "rack1"}
	key, err := identity.NewKey()
	fatal(err)
	csr, err := identity.NewCSR(key)
	fatal(err)
	chain, err := g.root.Issue(csr, peer, nil, 0)
	fatal(err)
	sub, err := g.root.IssueIntermediate(csr, peer, 0)
	fatal(err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	fatal(err)
	ca, err := identity.LoadIntermediate(sub, der, g.root.CertDER())
	fatal(err)
	a := &fakeAgent{g: g, ca: ca, cut: make(chan struct{})}
	mux := http.NewServeMux()
	mux.Handle(farrierv1connect.NewRamdiskServiceHandler(a))
	mux.HandleFunc("/images/", a.image)
	a.server = httptest.NewUnstartedServer(a.needCertificate(mux))
	a.server.EnableHTTP2 = true
	a.server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: chain, PrivateKey: key}}, ClientAuth: tls.RequestClientCert}
	a.server.StartTLS()
	a.plain = httptest.NewServer(http.HandlerFunc(a.image))
	g.t.Cleanup(a.kill)
	leaf, err := x509.ParseCertificate(chain[0])
	fatal(err)
	pin := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	a.info = &farrierv1.GroupAgent{Name: name, RamdiskUrl: a.server.URL, HttpUrl: a.plain.URL, RamdiskPin: hex.EncodeToString(pin[:])}
	return a
}

// kill ends the agent as a crash does.
func (a *fakeAgent) kill() {
	for _, s := range []*httptest.Server{a.server, a.plain} {
		s.Listener.Close()
		s.CloseClientConnections()
	}
	a.server.Config.Close()
	a.plain.Config.Close()
}

// needCertificate wants a ramdisk's certificate of any agent of the group for everything but Lookup.
func (a *fakeAgent) needCertificate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/Lookup") {
			p, err := identity.PeerOf(*r.TLS)
			if err != nil || p.Role != identity.RoleRamdisk || p.Boot != bootID {
				http.Error(w, `{"code":"unauthenticated"}`, http.StatusUnauthorized)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func (a *fakeAgent) image(w http.ResponseWriter, r *http.Request) {
	if a.choke > 0 {
		w = &choked{ResponseWriter: w, a: a, left: a.choke}
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.g.file))
}

type choked struct {
	http.ResponseWriter
	a    *fakeAgent
	left int64
}

func (c *choked) Write(p []byte) (int, error) {
	if c.left -= int64(len(p)); c.left < 0 {
		close(c.a.cut)
		go c.a.kill() // the whole agent dies
		panic(http.ErrAbortHandler)
	}
	return c.ResponseWriter.Write(p)
}

func (g *group) change(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	close(g.changed)
	g.changed = make(chan struct{})
}

// until waits for cond, which is called with mu held.
func (g *group) until(ctx context.Context, cond func() bool) bool {
	for {
		g.mu.Lock()
		ok, wake := cond(), g.changed
		g.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return false
		}
	}
}

func (a *fakeAgent) Lookup(_ context.Context, q *farrierv1.LookupRequest) (*farrierv1.LookupResponse, error) {
	if q.BootId != bootID || q.Secret != "5ec4e7" {
		return nil, connect.NewError(connect.CodeUnauthenticated, fmt.Errorf("wrong secret"))
	}
	chain, err := a.ca.Issue(q.CsrDer, identity.Peer{Cluster: "test", Role: identity.RoleRamdisk, Name: "n1", Group: "rack1", Boot: q.BootId}, nil, identity.RamdiskTTL)
	if err != nil {
		return nil, err
	}
	resp := &farrierv1.LookupResponse{Node: "n1", ChainDer: chain, CaDer: a.g.root.CertDER(), HeartbeatInterval: durationpb.New(50 * time.Millisecond)}
	a.g.change(func() {
		a.g.lookups++
		a.g.macs = q.Macs
		for _, o := range a.g.agents {
			resp.Agents = append(resp.Agents, o.info)
		}
	})
	return resp, nil
}

func (a *fakeAgent) Heartbeat(context.Context, *farrierv1.HeartbeatRequest) (*farrierv1.HeartbeatResponse, error) {
	resp := &farrierv1.HeartbeatResponse{Interval: durationpb.New(50 * time.Millisecond)}
	a.g.change(func() {
		a.g.beats++
		resp.Halt = a.g.halt
	})
	return resp, nil
}

func (a *fakeAgent) NextCommand(ctx context.Context, q *farrierv1.NextCommandRequest) (*farrierv1.NextCommandResponse, error) {
	resp := &farrierv1.NextCommandResponse{}
	a.g.until(ctx, func() bool {
		if len(a.g.queue) == 0 || a.deaf {
			return false
		}
		c := a.g.queue[0]
		if h := q.Have; h != nil && h.Step == c.Ref.Step && h.Token >= c.Ref.Token && !c.Cancel {
			return false
		}
		resp.Command = c
		return true
	})
	return resp, ctx.Err()
}

func (a *fakeAgent) ReportStep(_ context.Context, q *farrierv1.ReportStepRequest) (*farrierv1.ReportStepResponse, error) {
	a.g.change(func() {
		a.g.outcomes = append(a.g.outcomes, q.Outcome)
		if len(a.g.queue) > 0 && a.g.queue[0].Ref.Step == q.Outcome.Ref.Step {
			a.g.queue = a.g.queue[1:]
		}
	})
	return &farrierv1.ReportStepResponse{}, nil
}

func (a *fakeAgent) GetManifest(_ context.Context, q *farrierv1.GetManifestRequest) (*farrierv1.GetManifestResponse, error) {
	if q.Sha256 != a.g.manifest.GetSha256() {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no image"))
	}
	return a.g.manifest, nil
}

func (g *group) order(step uint32, token uint64, name string, args map[string]string) {
	c := &farrierv1.RamdiskCommand{Ref: &farrierv1.OrderRef{Node: "n1", Flow: 1, Step: step, Attempt: 1, Token: token}, Step: name, Args: args}
	if sha := args["sha256"]; sha != "" {
		c.ImagePath = "/images/" + sha
	}
	g.change(func() { g.queue = append(g.queue, c) })
}

// reported is the outcomes so far.
func (g *group) reported() []*farrierv1.StepOutcome {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]*farrierv1.StepOutcome(nil), g.outcomes...)
}

func (g *group) serveImage(size int) {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	g.serveBytes(b)
}

func (g *group) serveBytes(b []byte) {
	g.file = b
	size := len(b)
	sum := sha256.Sum256(g.file)
	const chunk = 256 << 10
	g.manifest = &farrierv1.GetManifestResponse{Sha256: hex.EncodeToString(sum[:]), Format: "raw", FileSize: uint64(size), ContentSize: uint64(size), ChunkSize: chunk}
	for off := 0; off < size; off += chunk {
		c := g.file[off:min(off+chunk, size)]
		if len(bytes.Trim(c, "\x00")) == 0 {
			g.manifest.Chunks = append(g.manifest.Chunks, nil)
			continue
		}
		d := sha256.Sum256(c)
		g.manifest.Chunks = append(g.manifest.Chunks, d[:])
	}
}

func (g *group) cmdline(agents ...*fakeAgent) string {
	var urls, pins []string
	for _, a := range agents {
		urls, pins = append(urls, a.info.RamdiskUrl), append(pins, a.info.RamdiskPin)
	}
	return fmt.Sprintf("quiet farrier.boot=%s farrier.secret=5ec4e7 farrier.agents=%s farrier.pins=%s", bootID, strings.Join(urls, ","), strings.Join(pins, ","))
}

// ramdisk is the program as a software machine.
type ramdisk struct {
	dir            string
	code           chan int
	stdout, stderr lockedBuffer
	stdin          *io.PipeWriter
	stop           context.CancelFunc
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t *testing.T, line string) *ramdisk {
	t.Helper()
	r := &ramdisk{dir: t.TempDir(), code: make(chan int, 1)}
	spec := `{"system":{"uuid":"11111111-2222-4333-8444-555555555555"},"source_ip":"127.0.0.1","nics":[{"mac":"52:54:00:00:00:01"}],
		"disks":[{"path":"disk.img","size_bytes":8388608,"serial":"D1","write_log":"writes"}]}`
	file := filepath.Join(r.dir, "machine.json")
	if err := os.WriteFile(file, []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	stdin, w := io.Pipe()
	r.stdin = w
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.code <- Command(ctx, []string{"--cmdline", line, "--machine", file, "--exit-with-stdin"}, stdin, &r.stdout, &r.stderr)
	}()
	t.Cleanup(func() {
		stop()
		w.Close()
		<-done
		if t.Failed() {
			t.Log(r.stderr.String())
		}
	})
	return r
}

func (r *ramdisk) exit(t *testing.T, want int, marker string) {
	t.Helper()
	select {
	case code := <-r.code:
		if code != want || !strings.HasSuffix(r.stdout.String(), marker) {
			t.Errorf("exit code %d, output %q", code, r.stdout.String())
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
}

func (g *group) wait(what string, cond func() bool) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if !g.until(ctx, cond) {
		g.t.Fatalf("waited in vain for %s", what)
	}
}

// A machine is deployed by two agents, the first of which dies in the middle of the image.
func TestAgentDiesInTheMiddleOfTheImage(t *testing.T) {
	g := newGroup(t, "rack1-a", "rack1-b")
	g.serveImage(4 << 20)
	g.agents[0].choke = 1 << 20
	r := start(t, g.cmdline(g.agents[0])) // of b it learns from a
	g.wait("heartbeats", func() bool { return g.beats > 0 && len(g.macs) == 1 && g.macs[0] == "52:54:00:00:00:01" })
	g.order(1, 10, "inventory", nil)
	g.wait("the inventory", func() bool { return len(g.outcomes) == 1 && g.outcomes[0].Ok && len(g.outcomes[0].Inventory) > 0 })
	g.order(2, 11, "write_image", map[string]string{"sha256": g.manifest.Sha256, "format": "raw", "disk_id": "serial-D1"})
	select {
	case <-g.agents[0].cut:
	case <-time.After(30 * time.Second):
		t.Fatal("the image was not asked for")
	}
	g.wait("the image", func() bool { return len(g.outcomes) == 2 })
	if o := g.reported()[1]; !o.Ok || o.Facts["written"] != fmt.Sprint(4<<20) || o.Facts["simulated"] != "true" {
		t.Errorf("outcome %v", o)
	}
	disk, err := os.ReadFile(filepath.Join(r.dir, "disk.img"))
	if err != nil || !bytes.Equal(disk[:len(g.file)], g.file) {
		t.Errorf("the disk differs from the image (%v)", err)
	}
	log, err := os.ReadFile(filepath.Join(r.dir, "writes"))
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(g.manifest.Chunks); i++ {
		if n := strings.Count(string(log), fmt.Sprintf("write %d ", i<<18)); n != 1 {
			t.Errorf("chunk %d was written %d times", i, n)
		}
	}
	g.order(3, 12, "power_off", nil)
	r.exit(t, ExitPowerOff, MarkPowerOff+"\n")
	if got := g.reported(); len(got) != 3 || !got[2].Ok {
		t.Errorf("outcomes %v: it left without having reported", got)
	}
}

func TestStaleTokenIsNotObeyed(t *testing.T) {
	g := newGroup(t, "rack1-a")
	r := start(t, g.cmdline(g.agents...))
	g.order(1, 20, "inventory", nil)
	g.wait("the inventory", func() bool { return len(g.outcomes) == 1 })
	g.order(2, 19, "reboot", nil)
	g.wait("the refusal", func() bool { return strings.Contains(r.stderr.String(), "order refused") })
	g.change(func() { g.queue = nil })
	g.order(3, 21, "reboot", nil)
	r.exit(t, ExitReboot, MarkReboot+"\n")
	if got := g.reported(); len(got) != 2 || got[1].Ref.Step != 3 {
		t.Errorf("outcomes %v", got)
	}
}

func TestHaltEndsTheWork(t *testing.T) {
	g := newGroup(t, "rack1-a")
	r := start(t, g.cmdline(g.agents...))
	g.wait("a heartbeat", func() bool { return g.beats > 0 })
	g.change(func() { g.halt = true })
	r.exit(t, ExitPowerOff, MarkPowerOff+"\n")
}

func TestEndsWithStandardInput(t *testing.T) {
	g := newGroup(t, "rack1-a")
	r := start(t, g.cmdline(g.agents...))
	g.wait("a heartbeat", func() bool { return g.beats > 0 })
	r.stdin.Close()
	r.exit(t, ExitStdin, "")
}

// An agent whose key is not pinned is not talked to.
func TestOtherKeyIsRefused(t *testing.T) {
	g := newGroup(t, "rack1-a", "impostor")
	real, false_ := g.agents[0], g.agents[1]
	line := strings.Replace(g.cmdline(real), real.info.RamdiskUrl, false_.info.RamdiskUrl+","+real.info.RamdiskUrl, 1)
	r := start(t, line)
	g.wait("a heartbeat", func() bool { return g.beats > 0 && g.lookups == 1 })
	if !strings.Contains(r.stderr.String(), "pinned") {
		t.Errorf("log %s", r.stderr.String())
	}
}

func TestWrongFlags(t *testing.T) {
	for _, args := range [][]string{{"--machine", "absent", "--cmdline", "x"}, {"frob"}, {}, {"--this-machine", "--machine", "x"}} {
		var out, errOut bytes.Buffer
		if code := Command(context.Background(), args, strings.NewReader(""), &out, &errOut); code != ExitUsage || errOut.Len() == 0 {
			t.Errorf("%q: code %d, %q", args, code, errOut.String())
		}
	}
}
