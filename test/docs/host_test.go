package docs

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/test/lab/machine"
	"github.com/farrier-project/farrier/test/lab/redfish"
)

// patience bounds a command, and a wait for what one led to. Nothing is asserted of the time that it takes.
const patience = 2 * time.Minute

// host is a computer of the story: a directory that stands for its file system, and what was done to it.
type host struct {
	name   string
	dir    string
	person bool              // somebody's own computer: commands run with its home directory, without /etc/farrier
	users  map[string]bool   // made by useradd
	owners map[string]string // by path as the page has it; root has the rest
	made   []string          // directories and files that commands made, by path as the page has them
	files  map[string]string // yaml and ini blocks, by path, as the page has them
	units  map[string]*daemon
}

func (h *host) owner(path string) string {
	best, who := "", "root"
	for p, u := range h.owners {
		if below(path, p) && len(p) > len(best) {
			best, who = p, u
		}
	}
	return who
}

// world is the hosts of one page, with the rack that its commands speak of.
type world struct {
	t      *testing.T
	net    int // the second byte of its addresses
	hosts  map[string]*host
	client *client.Client
	token  string // that was printed last
	rack   *rack
}

// rack is one machine, and a server of images.
type rack struct {
	machine *machine.Machine
	bmc     *redfish.BMC
	image   image
	url     string
}

// What the pages say of their machine.
const (
	nodeName   = "web-1"
	nodeMAC    = "52:54:00:12:34:56"
	bmcAddress = "https://10.1.0.5"
	imageURL   = "https://images.example/debian-12.raw.zst"
)

func newWorld(t *testing.T, parts []part) *world {
	w := &world{t: t, net: chooseNet(t), hosts: map[string]*host{}}
	dir := t.TempDir()
	t.Cleanup(w.stop)
	for _, p := range parts {
		if name, _ := place(p.text); p.kind == where && name != "" && w.hosts[name] == nil {
			w.hosts[name] = &host{name: name, dir: filepath.Join(dir, name), person: strings.HasPrefix(p.text, "at "),
				users: map[string]bool{}, owners: map[string]string{}, files: map[string]string{}, units: map[string]*daemon{}}
		}
	}
	for _, h := range w.hosts {
		// What a host has before anybody does anything: its system, the distribution's packages, the operator's own files.
		for path, text := range map[string]string{
			"/usr/local/bin/": "", "/etc/systemd/system/": "", "/boot/vmlinuz-" + release: "a kernel: software machines do not execute it\n",
			"/usr/lib/ipxe/undionly.kpxe": "a boot program: software machines do not execute it\n", "/usr/lib/ipxe/snponly.efi": "another\n",
			"/root/web-1.password": "password-of-web-1\n", "/root/cloud-init.yaml": "#cloud-config\nhostname: web-1\n", "/home/" + h.name + "/": "",
		} {
			h.put(t, path, text)
		}
	}
	w.rack = newRack(t, w)
	return w
}

// chooseNet finds a network of loopback, 127.N.0.0/16, on which nobody listens.
func chooseNet(t *testing.T) int {
	t.Helper()
	for range 100 {
		n := 100 + rand.IntN(100)
		ln, err := net.Listen("tcp", fmt.Sprintf("127.%d.0.1:7600", n))
		if err == nil {
			ln.Close()
			return n
		}
	}
	t.Fatal("every network of loopback is taken")
	return 0
}

// put writes a file, or makes a directory if path ends in a slash.
func (h *host) put(t *testing.T, path, text string) {
	t.Helper()
	real := h.dir + path
	err := os.MkdirAll(filepath.Dir(real), 0o755)
	if err == nil && !strings.HasSuffix(path, "/") {
		err = os.WriteFile(real, []byte(text), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func newRack(t *testing.T, w *world) *rack {
	r := &rack{image: buildImage(t)}
	ln, err := net.Listen("tcp", w.address("10.0.0.9")+":0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.FileServer(http.Dir(filepath.Dir(r.image.path))), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { srv.Close() })
	r.url = "http://" + ln.Addr().String() + "/" + filepath.Base(r.image.path)
	mac, err := net.ParseMAC(nodeMAC)
	if err != nil {
		t.Fatal(err)
	}
	agent := netip.MustParseAddr(w.address("10.1.0.2"))
	r.machine, err = machine.New(machine.Config{Dir: filepath.Join(t.TempDir(), "machine"), Name: nodeName, IP: netip.MustParseAddr(w.address("10.1.0.100")), MAC: mac,
		UUID: "77000000-0000-4000-8000-000000000077", Serial: "SIM0001", DiskBytes: 64 << 20,
		Helpers: []machine.Helper{{DHCP: netip.AddrPortFrom(agent, dhcpPort), TFTP: tftpPort}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.machine.Close() })
	if r.bmc, err = redfish.Start(redfish.Config{Address: w.address("10.1.0.5") + ":0", Machine: r.machine, User: "admin", Password: "password-of-web-1"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.bmc.Close() })
	return r
}

// Ports below 1024 are root's.
const (
	dhcpPort = 10067
	tftpPort = 10069
)

// release stands for what `uname -r` prints.
const release = "6.1.0-56-amd64"

var (
	addressRE = regexp.MustCompile(`\b10\.([01])\.0\.(\d+)\b`)
	pathRE    = regexp.MustCompile(`(^|[ =@:])(/(?:usr|etc|var|root|boot)/)`)
)

// address is where an address of the page is here: 10.x.0.z is 127.N.x.z.
func (w *world) address(a string) string {
	return addressRE.ReplaceAllString(a, fmt.Sprintf("127.%d.$1.$2", w.net))
}

// argument is an argument of a command as it is run: these are all the substitutions in commands.
func (w *world) argument(h *host, arg string) string {
	for _, s := range [][2]string{
		{bmcAddress, w.rack.bmc.URL()},
		{imageURL, w.rack.url},
		{"redfish_pin=…", "redfish_pin=" + w.rack.bmc.Pin()},
		{"@web-1.password", "@" + h.dir + "/root/web-1.password"}, // relative to where the operator is
		{"cloud-init.yaml", h.dir + "/root/cloud-init.yaml"},
		{"farrier-join-…", w.token},
		{"/lib/modules/$(uname -r)", "none"}, // software machines execute no kernel, and load no modules
		{"$(uname -r)", release},
		{"NODE", nodeName},
		{"~", h.home()},
	} {
		arg = strings.ReplaceAll(arg, s[0], s[1])
	}
	return pathRE.ReplaceAllString(w.address(arg), "${1}"+h.dir+"$2")
}

func (h *host) home() string { return h.dir + "/home/" + h.name }

// fileText is a file as it is used: these are all the substitutions in files.
func (w *world) fileText(h *host, text string) string {
	agent := w.address("10.1.0.2")
	for _, s := range [][2]string{
		{"  interface: eth1\n", ""},                                          // loopback has no broadcast: the machine's relay asks
		{"0.0.0.0:8080", agent + ":8080"}, {"0.0.0.0:8443", agent + ":8443"}, // one host has all addresses here
		{`":67"`, fmt.Sprintf(`"%s:%d"`, agent, dhcpPort)}, {`":69"`, fmt.Sprintf(`"%s:%d"`, agent, tftpPort)},
		{"images: {", "images: {allow: [127.0.0.0/8], "}, // the image server is on loopback, which is refused otherwise
	} {
		text = strings.ReplaceAll(text, s[0], s[1])
	}
	text = regexp.MustCompile(`(?m)^  router_advertisements: true .*\n`).ReplaceAllString(text, "") // it needs an interface and CAP_NET_RAW
	return regexp.MustCompile(`(?m)([ =@:])(/(?:usr|etc|var)/)`).ReplaceAllString(w.address(text), "${1}"+h.dir+"$2")
}

// open makes the client with which the test looks.
func (w *world) open(dir string) {
	w.t.Helper()
	c, err := client.Open(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	w.client = c
	w.t.Cleanup(c.Close)
}

// until waits for what no event tells of.
func (w *world) until(what string, met func(ctx context.Context) bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !met(ctx) {
		select {
		case <-ctx.Done():
			w.t.Fatalf("%s: it never was", what)
		case <-tick.C:
		}
	}
}

func (w *world) node(ctx context.Context) *farrierv1.Node {
	res, err := w.client.Nodes.GetNode(ctx, &farrierv1.GetNodeRequest{Node: nodeName})
	if err != nil {
		return nil
	}
	return res.GetNode()
}
