package identity

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"time"

	"github.com/farrier-project/farrier/pkg/fault"
)

// ServerTLS serves with the store's newest certificate. With a clientAuth that asks for one, a client's certificate must
// chain to the store's CA and be of its cluster; roles are the handler's to check, by PeerOf.
func ServerTLS(s *Store, clientAuth tls.ClientAuthType) *tls.Config {
	require := clientAuth == tls.RequireAndVerifyClientCert || clientAuth == tls.RequireAnyClientCert
	cfg := &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.Certificate(), nil },
		NextProtos:     []string{"h2", "http/1.1"},
		ClientAuth:     tls.RequestClientCert,
		// A resumed session would not show its certificate again.
		SessionTicketsDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 && !require {
				return nil
			}
			_, err := verify(s, cs)
			return err
		},
	}
	switch {
	case clientAuth == tls.NoClientCert:
		cfg.ClientAuth, cfg.VerifyConnection = tls.NoClientCert, nil
	case require:
		cfg.ClientAuth = tls.RequireAnyClientCert
	}
	return cfg
}

// ClientTLS connects with the store's certificate to a server of the role, whatever its address.
func ClientTLS(s *Store, want Role) *tls.Config {
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return s.Certificate(), nil },
		NextProtos:           []string{"h2", "http/1.1"},
		InsecureSkipVerify:   true, // VerifyConnection checks chain, cluster and role instead of the host name
		VerifyConnection: func(cs tls.ConnectionState) error {
			p, err := verify(s, cs)
			if err != nil {
				return err
			}
			return RequireRole(p, want)
		},
	}
}

// RequireRole is nil if p has one of the roles, else fault.Denied.
func RequireRole(p Peer, roles ...Role) error {
	for _, r := range roles {
		if p.Role == r {
			return nil
		}
	}
	return fault.New(fault.Denied, "check role", "%s is not one of %v", p.Actor(), roles)
}

func verify(s *Store, cs tls.ConnectionState) (Peer, error) {
	if len(cs.PeerCertificates) == 0 {
		return PeerOf(cs)
	}
	inter := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		inter.AddCert(c)
	}
	if _, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: s.roots(), Intermediates: inter,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return Peer{}, fault.New(fault.Unauthenticated, "check certificate", "%w", err).
			WithHelp("the other side belongs to another cluster, or its certificate expired: join it again")
	}
	p, err := peerOfChain(cs.PeerCertificates)
	if err != nil {
		return Peer{}, err
	}
	if own := s.Peer().Cluster; p.Cluster != own {
		return Peer{}, fault.New(fault.Unauthenticated, "check certificate", "cluster %q instead of %q", p.Cluster, own)
	}
	if s.Revoked(p.Key) {
		return Peer{}, fault.New(fault.Denied, "check certificate", "the certificate of %s was revoked", p.Actor()).
			WithHelp("it is not of the cluster any more: do not trust what answers at its address")
	}
	return p, nil
}

// Transport speaks HTTP/2 over TLS by cfg. A machine without power refuses nothing: it waits 2 s for a connection and 3 s for
// the handshake.
func Transport(cfg *tls.Config) *http.Transport {
	return &http.Transport{
		TLSClientConfig:     cfg,
		DialContext:         (&net.Dialer{Timeout: 2 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout: 3 * time.Second,
		ForceAttemptHTTP2:   true,
	}
}

// PinnedTLS trusts a server whose public key has one of the hashes (SHA-256 of the SubjectPublicKeyInfo), and ignores
// names and dates. cert, if not nil, gives the client's certificate.
func PinnedTLS(cert func() *tls.Certificate, pins ...[32]byte) *tls.Config {
	cfg := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{"h2", "http/1.1"},
		InsecureSkipVerify: true, // VerifyConnection checks the pin
		VerifyConnection: func(cs tls.ConnectionState) error {
			got := sha256.Sum256(cs.PeerCertificates[0].RawSubjectPublicKeyInfo)
			for _, pin := range pins {
				if subtle.ConstantTimeCompare(got[:], pin[:]) == 1 {
					return nil
				}
			}
			return fault.New(fault.Unauthenticated, "check agent's key", "key %x is not one of the %d pinned", got, len(pins))
		},
	}
	if cert != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if c := cert(); c != nil {
				return c, nil
			}
			return &tls.Certificate{}, nil
		}
	}
	return cfg
}

// JoinTLS trusts a coordinator whose chain ends in the CA with the hash (SHA-256 of the certificate), which servers
// made by Store send along, and ignores names and dates.
func JoinTLS(caHash [32]byte) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{"h2", "http/1.1"},
		InsecureSkipVerify: true, // VerifyConnection checks the chain against the hash
		VerifyConnection: func(cs tls.ConnectionState) error {
			for _, c := range cs.PeerCertificates[1:] {
				if sha256.Sum256(c.Raw) != caHash {
					continue
				}
				roots := x509.NewCertPool()
				roots.AddCert(c)
				leaf := cs.PeerCertificates[0]
				_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: leaf.NotBefore.Add(time.Minute),
					KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
				if err != nil {
					return fault.New(fault.Unauthenticated, "check coordinator", "%w", err)
				}
				p, err := peerOfCert(leaf)
				if err != nil {
					return err
				}
				return RequireRole(p, RoleCoordinator)
			}
			return fault.New(fault.Unauthenticated, "check coordinator", "it does not belong to the cluster that made the join token").
				WithHelp("make a new token on the cluster that you mean to join: farrier coordinator token")
		},
	}
}
