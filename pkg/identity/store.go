package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/farrier-project/farrier/pkg/fault"
)

// The files of a store. All have mode 0600 in a directory of mode 0700.
const (
	keyFile         = "key.pem"
	certFile        = "cert.pem"
	caFile          = "ca.pem"
	ramdiskKeyFile  = "ramdisk-key.pem"
	ramdiskCertFile = "ramdisk-cert.pem"
	revokedFile     = "revoked" // keys in hex, one a line
)

// Store is a directory with a part's key, its certificate chain and the cluster's CA; an agent's also has its ramdisk
// CA. TLS configurations made from it use a renewed certificate at once. It is safe for concurrent use.
type Store struct {
	dir string
	key *ecdsa.PrivateKey

	mu   sync.RWMutex
	cert *tls.Certificate // leaf, intermediates, CA
	ca   *x509.Certificate
	pool *x509.CertPool
	peer Peer

	revoked map[[32]byte]bool // by the hash that Pin makes
	written bool              // revoked is on the disk
}

// NewStore makes dir with a fresh key and no certificate; Put gives it one. An existing key is kept, so that a join
// that was cut can be repeated.
func NewStore(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Wrap("make identity", err)
	}
	path := filepath.Join(dir, keyFile)
	if _, err := os.Stat(path); err == nil {
		key, err := readKey(path)
		if err != nil {
			return nil, err
		}
		s := &Store{dir: dir, key: key}
		return s, s.readRevoked()
	}
	key, err := NewKey()
	if err != nil {
		return nil, fault.Wrap("make identity", err)
	}
	if err := writePEM(path, "PRIVATE KEY", marshalKey(key)); err != nil {
		return nil, fault.Wrap("make identity", err)
	}
	return &Store{dir: dir, key: key}, nil
}

// OpenStore reads a directory that has a certificate.
func OpenStore(dir string) (*Store, error) {
	key, err := readKey(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, key: key}
	if err := s.readRevoked(); err != nil {
		return nil, err
	}
	return s, s.Reload()
}

// Reload takes over the certificate that another process put into the directory, for the same key.
func (s *Store) Reload() error {
	chain, err := readPEM(filepath.Join(s.dir, certFile))
	if err != nil {
		return err
	}
	ca, err := readPEM(filepath.Join(s.dir, caFile))
	if err != nil {
		return err
	}
	return fault.Wrap("open identity "+s.dir, s.use(chain, ca[0]))
}

// Put takes a new certificate chain (leaf first, without the root) and the CA, and writes them.
func (s *Store) Put(chainDER [][]byte, caDER []byte) error {
	if err := s.use(chainDER, caDER); err != nil {
		return fault.Wrap("store certificate", err)
	}
	if err := writePEM(filepath.Join(s.dir, caFile), "CERTIFICATE", caDER); err != nil {
		return fault.Wrap("store certificate", err)
	}
	return fault.Wrap("store certificate", writePEM(filepath.Join(s.dir, certFile), "CERTIFICATE", chainDER...))
}

func (s *Store) use(chainDER [][]byte, caDER []byte) error {
	if len(chainDER) == 0 {
		return fault.New(fault.Invalid, "read certificate", "the chain is empty")
	}
	leaf, _, err := parsePair(chainDER[0], marshalKey(s.key))
	if err != nil {
		return err
	}
	ca, err := x509.ParseCertificate(caDER)
	if err != nil {
		return fault.New(fault.Corrupt, "read CA certificate", "%w", err)
	}
	peer, err := peerOfCert(leaf)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	full := append(append([][]byte{}, chainDER...), caDER) // the CA is sent along for JoinTLS
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cert = &tls.Certificate{Certificate: full, PrivateKey: s.key, Leaf: leaf}
	s.ca, s.pool, s.peer = ca, pool, peer
	return nil
}

// Dir is where the store lives.
func (s *Store) Dir() string { return s.dir }

// Peer is who the store's certificate says it is; zero before the first Put.
func (s *Store) Peer() Peer {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.peer
}

// Certify puts a certificate of the CA for the store's own key into it, where whoever has the CA is the store's owner too. For
// arguments and errors see Issue.
func (s *Store) Certify(ca *CA, p Peer, hosts []string, ttl time.Duration) error {
	csr, err := s.CSR()
	if err != nil {
		return err
	}
	chain, err := ca.Issue(csr, p, hosts, ttl)
	if err != nil {
		return err
	}
	return s.Put(chain, ca.CertDER())
}

// CSR is a certificate request for the store's key.
func (s *Store) CSR() ([]byte, error) { return NewCSR(s.key) }

// Certificate is what TLS presents; an empty one before the first Put.
func (s *Store) Certificate() *tls.Certificate {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.cert == nil {
		return &tls.Certificate{}
	}
	return s.cert
}

// CADER is the cluster's CA certificate.
func (s *Store) CADER() []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.ca == nil {
		return nil
	}
	return s.ca.Raw
}

func (s *Store) roots() *x509.CertPool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.pool
}

// Pin is the SHA-256 of the public key: what PinnedTLS checks.
func (s *Store) Pin() [32]byte {
	der, err := x509.MarshalPKIXPublicKey(s.key.Public())
	if err != nil {
		panic("identity: an ECDSA key always marshals: " + err.Error())
	}
	return sha256.Sum256(der)
}

// RenewAt is when two thirds of the certificate's life are over.
func (s *Store) RenewAt() time.Time {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.cert == nil {
		return time.Time{}
	}
	return renewAt(s.cert.Leaf)
}

// RamdiskCSR is a certificate request for the agent's ramdisk CA, whose key is made on first use.
func (s *Store) RamdiskCSR() ([]byte, error) {
	path := filepath.Join(s.dir, ramdiskKeyFile)
	if _, err := os.Stat(path); err != nil {
		key, err := NewKey()
		if err != nil {
			return nil, fault.Wrap("make ramdisk CA", err)
		}
		if err := writePEM(path, "PRIVATE KEY", marshalKey(key)); err != nil {
			return nil, fault.Wrap("make ramdisk CA", err)
		}
	}
	key, err := readKey(path)
	if err != nil {
		return nil, err
	}
	return NewCSR(key)
}

// PutRamdiskCA takes the ramdisk CA's chain, without the root.
func (s *Store) PutRamdiskCA(chainDER [][]byte) error {
	return fault.Wrap("store ramdisk CA", writePEM(filepath.Join(s.dir, ramdiskCertFile), "CERTIFICATE", chainDER...))
}

// RamdiskCA is the agent's intermediate CA.
func (s *Store) RamdiskCA() (*CA, error) {
	key, err := readKey(filepath.Join(s.dir, ramdiskKeyFile))
	if err != nil {
		return nil, err
	}
	chain, err := readPEM(filepath.Join(s.dir, ramdiskCertFile))
	if err != nil {
		return nil, err
	}
	return LoadIntermediate(chain, marshalKey(key), s.CADER())
}

func readKey(path string) (*ecdsa.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fault.New(fault.NotFound, "read key", "%w", err).WithHelp("join the cluster first: this directory has no identity")
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fault.New(fault.Denied, "read key", "%s has mode %04o: others may read it", path, info.Mode().Perm()).WithHelp("chmod 0600 %s", path)
	}
	blocks, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(blocks[0])
	if err != nil {
		return nil, fault.New(fault.Corrupt, "read key", "%s: %w", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fault.New(fault.Corrupt, "read key", "%s holds a %T", path, parsed)
	}
	return key, nil
}

func readPEM(path string) ([][]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.NotFound, "read identity", "%w", err).WithHelp("join the cluster first")
	}
	var out [][]byte
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		out, data = append(out, block.Bytes), rest
	}
	if len(out) == 0 {
		return nil, fault.New(fault.Corrupt, "read identity", "%s holds no PEM block", path)
	}
	return out, nil
}

func writePEM(path, kind string, ders ...[]byte) error {
	return writeFile(path, func(f *os.File) error {
		for _, der := range ders {
			if err := pem.Encode(f, &pem.Block{Type: kind, Bytes: der}); err != nil {
				return err
			}
		}
		return nil
	})
}

// writeFile writes a file of mode 0600 whole, or not at all.
func writeFile(path string, write func(*os.File) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".identity-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if err := write(tmp); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

var _ crypto.Signer = (*ecdsa.PrivateKey)(nil)
