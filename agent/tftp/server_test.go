package tftp

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	upstream "github.com/pin/tftp/v3"
)

func start(t *testing.T, cfg Config) (addr string, stop func() error) {
	t.Helper()
	conn, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- New(cfg).Serve(ctx, conn) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-served
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return conn.LocalAddr().String(), stop
}

func get(t *testing.T, addr, name string) ([]byte, int64, error) {
	t.Helper()
	c, err := upstream.NewClient(addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetTimeout(2 * time.Second)
	c.RequestTSize(true)
	c.SetBlockSize(1468)
	w, err := c.Receive(name, "octet")
	if err != nil {
		return nil, 0, err
	}
	size := int64(-1)
	if n, ok := w.(upstream.IncomingTransfer).Size(); ok {
		size = n
	}
	var b bytes.Buffer
	_, err = w.WriteTo(&b)
	return b.Bytes(), size, err
}

func TestGet(t *testing.T) {
	program := bytes.Repeat([]byte("0123456789abcdef"), 8192) // 128 KiB: many blocks, the last one short
	addr, _ := start(t, Config{
		Files: map[string][]byte{"snponly.efi": program, "grub/grub.cfg": []byte("x"), "exact": make([]byte, 1468*2)},
		Script: func(name string) ([]byte, bool) {
			return []byte("#!ipxe\n"), name == "52-54-00-00-00-01.ipxe"
		},
	})
	tests := []struct {
		name string
		want []byte // nil: not found
	}{
		{"snponly.efi", program},
		{"/snponly.efi", program},
		{"///snponly.efi", program},
		{`\snponly.efi`, program},
		{`grub\grub.cfg`, []byte("x")},
		{"exact", make([]byte, 1468*2)},
		{"52-54-00-00-00-01.ipxe", []byte("#!ipxe\n")},
		{"52-54-00-00-00-02.ipxe", nil},
		{"revocations_sku.efi", nil},
		{"../snponly.efi", nil},
		{"grub/../snponly.efi", nil},
		{"/etc/passwd", nil},
		{"SNPONLY.EFI", nil},
		{"", nil},
		{strings.Repeat("a", 300), nil},
	}
	for _, tt := range tests {
		began := time.Now()
		got, size, err := get(t, addr, tt.name)
		switch {
		case tt.want == nil:
			if err == nil || !strings.Contains(err.Error(), "not found") {
				t.Errorf("%.40q: %v, want file not found", tt.name, err)
			}
			if d := time.Since(began); d > time.Second {
				t.Errorf("%.40q: refused after %s, firmware waits for it", tt.name, d)
			}
		case err != nil || !bytes.Equal(got, tt.want) || size != int64(len(tt.want)):
			t.Errorf("%.40q: %d bytes, announced %d, %v", tt.name, len(got), size, err)
		}
	}
}

func TestWritesAreRefused(t *testing.T) {
	addr, _ := start(t, Config{Files: map[string][]byte{"a": []byte("a")}})
	c, err := upstream.NewClient(addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetTimeout(2 * time.Second)
	r, err := c.Send("a", "octet")
	if err == nil {
		_, err = r.ReadFrom(strings.NewReader("b"))
	}
	if err == nil || !strings.Contains(err.Error(), "does not support write") {
		t.Errorf("write: %v", err)
	}
}

// request sends a raw read request and returns the socket and the first answer.
func request(t *testing.T, addr, name string, options ...string) (net.PacketConn, []byte, net.Addr) {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	to, err := net.ResolveUDPAddr("udp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	p := append([]byte{0, 1}, name...)
	p = append(append(append(p, 0), "octet"...), 0)
	for _, o := range options {
		p = append(append(p, o...), 0)
	}
	if _, err := conn.WriteTo(p, to); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2000)
	n, from, err := conn.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	return conn, buf[:n], from
}

// TestAbortAfterSize is what OVMF does: it asks for the size, aborts with error 8, and asks again.
func TestAbortAfterSize(t *testing.T) {
	addr, stop := start(t, Config{Files: map[string][]byte{"a": make([]byte, 5000)}})
	conn, answer, from := request(t, addr, "a", "tsize", "0")
	if binary.BigEndian.Uint16(answer) != 6 || !bytes.Contains(answer, []byte("tsize\x005000\x00")) {
		t.Fatalf("answer %q, want an option acknowledgement with the size", answer)
	}
	if _, err := conn.WriteTo(append([]byte{0, 5, 0, 8}, "User aborted the transfer\x00"...), from); err != nil {
		t.Fatal(err)
	}
	if got, _, err := get(t, addr, "a"); err != nil || len(got) != 5000 {
		t.Errorf("after the abort: %d bytes, %v", len(got), err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestLimitPerClient(t *testing.T) {
	addr, _ := start(t, Config{Files: map[string][]byte{"a": make([]byte, 5000)}, PerClient: 2, AckTimeout: 50 * time.Millisecond})
	first, answer, from := request(t, addr, "a")
	if binary.BigEndian.Uint16(answer) != 3 {
		t.Fatalf("answer % x, want data", answer[:4])
	}
	request(t, addr, "a")
	if _, answer, _ = request(t, addr, "a"); binary.BigEndian.Uint16(answer) != 5 || !bytes.Contains(answer, []byte("too many")) {
		t.Errorf("the third transfer got %q", answer)
	}
	if _, err := first.WriteTo([]byte{0, 5, 0, 0, 0}, from); err != nil { // gives its place up
		t.Fatal(err)
	}
	for try := 0; ; try++ {
		_, answer, _ = request(t, addr, "a")
		if binary.BigEndian.Uint16(answer) == 3 {
			break
		}
		if try == 10000 {
			t.Fatal("the place was not given to another")
		}
	}
}

// TestStopEndsTransfers has a client that never answers.
func TestStopEndsTransfers(t *testing.T) {
	addr, stop := start(t, Config{Files: map[string][]byte{"a": make([]byte, 50000)}})
	conn, _, from := request(t, addr, "a")
	done := make(chan error, 1)
	go func() { done <- stop() }()
	for { // acknowledge until the server says that it stops
		if _, err := conn.WriteTo([]byte{0, 4, 0, 1}, from); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 2000)
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		if binary.BigEndian.Uint16(buf[:n]) == 5 || buf[3] == 2 {
			break
		}
	}
	conn.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestPanicIsContained(t *testing.T) {
	s := New(Config{Files: map[string][]byte{"a": nil}})
	err := s.read(t.Context(), "a", &brokenTransfer{})
	if err == nil || s.total != 0 || len(s.active) != 0 {
		t.Errorf("%v, with %d transfers left", err, s.total)
	}
}

type brokenTransfer struct{}

func (*brokenTransfer) ReadFrom(io.Reader) (int64, error) { panic("broken") }
func (*brokenTransfer) SetSize(int64)                     {}
func (*brokenTransfer) RemoteAddr() net.UDPAddr {
	return *net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:1"))
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"/a", `\..\a`, "a/../b", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if name, ok := clean(raw); ok && (name == "" || name[0] == '/' || strings.Contains(name, "..") || strings.Contains(name, `\`)) {
			t.Errorf("%q became %q", raw, name)
		}
	})
}
