package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Lifetimes of certificates. Holders renew at two thirds.
const (
	LeafTTL         = 30 * 24 * time.Hour
	IntermediateTTL = 30 * 24 * time.Hour
	RamdiskTTL      = time.Hour
	rootTTL         = 20 * 365 * 24 * time.Hour
	backdate        = time.Hour // for clocks that are behind
)

// CA issues certificates: the cluster's root, or an agent's ramdisk CA. It is safe for concurrent use.
type CA struct {
	cert  *x509.Certificate
	key   crypto.Signer
	chain [][]byte // what a leaf is followed by; empty for the root
}

// NewKey makes a private key of the kind that all parts use (ECDSA P-256).
func NewKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// NewCA makes the root of a new cluster.
func NewCA(cluster string) (*CA, error) {
	key, err := NewKey()
	if err != nil {
		return nil, fault.Wrap("make CA", err)
	}
	t := template(pkix.Name{CommonName: "Farrier " + cluster, Organization: []string{"Farrier"}}, rootTTL)
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLen = true, true, 1
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fault.Wrap("make CA", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.Wrap("make CA", err)
	}
	return &CA{cert: cert, key: key}, nil
}

// LoadCA reads a root from DER and PKCS #8.
func LoadCA(certDER, keyDER []byte) (*CA, error) {
	cert, key, err := parsePair(certDER, keyDER)
	if err != nil {
		return nil, fault.Wrap("load CA", err)
	}
	return &CA{cert: cert, key: key}, nil
}

// LoadIntermediate reads a ramdisk CA: its chain without the root, its key, and the root that it must chain to.
func LoadIntermediate(chainDER [][]byte, keyDER, rootDER []byte) (*CA, error) {
	if len(chainDER) == 0 {
		return nil, fault.New(fault.Invalid, "load ramdisk CA", "the chain is empty")
	}
	cert, key, err := parsePair(chainDER[0], keyDER)
	if err != nil {
		return nil, fault.Wrap("load ramdisk CA", err)
	}
	root, err := x509.ParseCertificate(rootDER)
	if err != nil {
		return nil, fault.Wrap("load ramdisk CA", err)
	}
	if err := cert.CheckSignatureFrom(root); err != nil {
		return nil, fault.New(fault.Unauthenticated, "load ramdisk CA", "it is not of this cluster: %w", err)
	}
	return &CA{cert: cert, key: key, chain: chainDER}, nil
}

// CertDER is the CA's certificate.
func (ca *CA) CertDER() []byte { return ca.cert.Raw }

// KeyDER is the CA's private key in PKCS #8: to be sealed.
func (ca *CA) KeyDER() []byte { return marshalKey(ca.key) }

// Until is when the CA's certificate ends, and with it everything that it issued.
func (ca *CA) Until() time.Time { return ca.cert.NotAfter }

// RenewAt is when two thirds of the CA's life are over.
func (ca *CA) RenewAt() time.Time { return renewAt(ca.cert) }

func renewAt(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 3 * 2)
}

// Hash is the SHA-256 of the certificate: what a join token carries.
func (ca *CA) Hash() [32]byte { return sha256.Sum256(ca.cert.Raw) }

// Issue makes a certificate for p with the key of the CSR; the CSR's own claims are ignored. hosts are names and
// addresses for callers that check them (browsers); ttl 0 means LeafTTL, and no certificate outlives its CA. The chain
// is leaf first, without the root. Expired: the CA's own life is over.
func (ca *CA) Issue(csrDER []byte, p Peer, hosts []string, ttl time.Duration) (chainDER [][]byte, err error) {
	if !p.Role.Valid() || p.Name == "" || p.Cluster == "" {
		return nil, fault.New(fault.Invalid, "issue certificate", "incomplete identity %q", p.uri())
	}
	if (len(ca.chain) > 0) != (p.Role == RoleRamdisk) {
		return nil, fault.New(fault.Denied, "issue certificate", "this CA may not issue role %q", p.Role)
	}
	if ttl == 0 {
		ttl = LeafTTL
	}
	t := template(pkix.Name{CommonName: p.Name, OrganizationalUnit: []string{string(p.Role)}}, ttl)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if h != "" {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return ca.sign(csrDER, t, p)
}

// IssueIntermediate makes the ramdisk CA of one agent: it can make ramdisk certificates of the agent's group.
func (ca *CA) IssueIntermediate(csrDER []byte, agent Peer, ttl time.Duration) (chainDER [][]byte, err error) {
	if len(ca.chain) > 0 || agent.Role != RoleAgent || agent.Group == "" {
		return nil, fault.New(fault.Denied, "issue ramdisk CA", "only the root issues one, to an agent with a group")
	}
	if ttl == 0 {
		ttl = IntermediateTTL
	}
	p := Peer{Cluster: agent.Cluster, Role: roleRamdiskCA, Name: agent.Name, Group: agent.Group}
	t := template(pkix.Name{CommonName: "ramdisks of " + agent.Name, OrganizationalUnit: []string{string(roleRamdiskCA)}}, ttl)
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign
	return ca.sign(csrDER, t, p)
}

func (ca *CA) sign(csrDER []byte, t *x509.Certificate, p Peer) ([][]byte, error) {
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, fault.New(fault.Invalid, "issue certificate", "not a certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fault.New(fault.Invalid, "issue certificate", "the request is not signed by its key: %w", err)
	}
	if k, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return nil, fault.New(fault.Invalid, "issue certificate", "the key is not ECDSA P-256")
	}
	t.URIs = []*url.URL{p.uri()}
	if until := ca.cert.NotAfter; t.NotAfter.After(until) {
		t.NotAfter = until
	}
	if !time.Now().Before(ca.cert.NotAfter) {
		return nil, fault.New(fault.Expired, "issue certificate", "the CA's own certificate ended at %s", ca.cert.NotAfter.Format(time.RFC3339))
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca.cert, csr.PublicKey, ca.key)
	if err != nil {
		return nil, fault.Wrap("issue certificate", err)
	}
	return append([][]byte{der}, ca.chain...), nil
}

func template(subject pkix.Name, ttl time.Duration) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic("identity: " + err.Error()) // crypto/rand does not fail
	}
	now := time.Now()
	return &x509.Certificate{SerialNumber: serial, Subject: subject, NotBefore: now.Add(-backdate), NotAfter: now.Add(ttl)}
}

// NewCSR makes a certificate request that proves possession of the key.
func NewCSR(key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	return der, fault.Wrap("make certificate request", err)
}

func marshalKey(key crypto.Signer) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(fmt.Sprintf("identity: a %T always marshals: %v", key, err))
	}
	return der
}

func parsePair(certDER, keyDER []byte) (*x509.Certificate, crypto.Signer, error) {
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, nil, fault.New(fault.Corrupt, "parse certificate", "%w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return nil, nil, fault.New(fault.Corrupt, "parse key", "%w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, fault.New(fault.Corrupt, "parse key", "a %T instead of ECDSA", parsed)
	}
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil || !bytes.Equal(pub, cert.RawSubjectPublicKeyInfo) {
		return nil, nil, fault.New(fault.Corrupt, "parse key", "certificate and key do not belong together")
	}
	return cert, key, nil
}
