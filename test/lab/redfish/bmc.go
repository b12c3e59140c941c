package redfish

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/farrier-project/farrier/test/lab"
)

// Config describes one BMC.
type Config struct {
	Address        string // to listen on; default 127.0.0.1:0
	User, Password string // default admin, secret
	Machine        lab.Machine
	MaxSessions    int // default 16, as on real BMCs; the oldest is not thrown out, the new one is refused
}

// BMC is a running emulator. It is safe for concurrent use.
type BMC struct {
	cfg      Config
	server   *http.Server
	done     chan struct{}
	url      string
	certPEM  []byte
	pin      string
	stopping chan struct{}

	machine sync.Mutex // one machine call at a time
	late    sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	faults   Faults
	sessions map[string]session // by token
	next     int
	requests []Request
	moving   string // "PoweringOn", "PoweringOff" while a delayed power change is under way
}

type session struct{ uri, user string }

// maxRequests bounds the record; the oldest go first.
const maxRequests = 10000

// Request is one changing request as the BMC saw it.
type Request struct {
	At      time.Time
	Method  string
	Path    string
	Session string // URI of the session it came under, "basic", or "" when not authenticated
	Effect  string // "On", "ForceOff", "boot Pxe Once", "session opened", "session deleted", "" when refused
	Status  int
	Powered bool // the machine had power before
}

// Start makes the certificate, listens and serves until Close.
func Start(cfg Config) (*BMC, error) {
	if cfg.Address == "" {
		cfg.Address = "127.0.0.1:0"
	}
	if cfg.User == "" {
		cfg.User, cfg.Password = "admin", "secret"
	}
	if cfg.MaxSessions == 0 {
		cfg.MaxSessions = 16
	}
	ln, err := net.Listen("tcp", cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("listen for bmc: %w", err)
	}
	b := &BMC{
		cfg: cfg, done: make(chan struct{}), stopping: make(chan struct{}),
		sessions: make(map[string]session), url: "https://" + ln.Addr().String(),
	}
	cert, err := b.certificate(ln.Addr().(*net.TCPAddr).IP)
	if err != nil {
		ln.Close()
		return nil, err
	}
	b.server = &http.Server{
		Handler:           b.handler(),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 5 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0), // a client that dislikes the certificate is not news
	}
	go func() {
		defer close(b.done)
		_ = b.server.ServeTLS(ln, "", "")
	}()
	return b, nil
}

func (b *BMC) certificate(ip net.IP) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "simulated BMC"}, IPAddresses: []net.IP{ip},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(365 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, err
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	b.pin = hex.EncodeToString(sum[:])
	b.certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// URL is where the BMC answers: https://127.0.0.1:port.
func (b *BMC) URL() string { return b.url }

// Pin is the hex SHA-256 of its public key, and CertPEM its certificate.
func (b *BMC) Pin() string { return b.pin }

// CertPEM is the BMC's certificate in PEM.
func (b *BMC) CertPEM() string { return string(b.certPEM) }

// DriverInfo is what a node needs to be driven through this BMC.
func (b *BMC) DriverInfo() map[string]string {
	return map[string]string{
		"redfish_address": b.url, "redfish_username": b.cfg.User, "redfish_password": b.cfg.Password, "redfish_pin": b.pin,
	}
}

// Close stops serving and waits. The machine is left as it is.
func (b *BMC) Close() error {
	close(b.stopping)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if b.server.Shutdown(ctx) != nil {
		_ = b.server.Close()
	}
	<-b.done
	b.late.Wait()
	return nil
}

// Requests is a copy of the record, oldest first.
func (b *BMC) Requests() []Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]Request(nil), b.requests...)
}

// Effects lists the effects of the record whose names are in want, in order; all of them when want is empty.
func (b *BMC) Effects(want ...string) []string {
	var out []string
	for _, r := range b.Requests() {
		if r.Effect == "" {
			continue
		}
		keep := len(want) == 0
		for _, w := range want {
			keep = keep || w == r.Effect
		}
		if keep {
			out = append(out, r.Effect)
		}
	}
	return out
}

// Sessions lists the URIs of the open sessions, in no order.
func (b *BMC) Sessions() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, s := range b.sessions {
		out = append(out, s.uri)
	}
	return out
}

// EndSessions forgets every session, as a BMC does when it restarts.
func (b *BMC) EndSessions() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.sessions)
}

func (b *BMC) note(r Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.requests) == maxRequests {
		b.requests = append(b.requests[:0], b.requests[maxRequests/10:]...)
	}
	b.requests = append(b.requests, r)
}
