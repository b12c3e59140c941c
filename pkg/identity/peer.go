package identity

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"slices"
	"strings"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Role is what a certificate's holder may be.
type Role string

// The roles.
const (
	RoleCoordinator Role = "coordinator"
	RoleAgent       Role = "agent"
	RoleRamdisk     Role = "ramdisk"
	RoleOperator    Role = "operator"

	roleRamdiskCA Role = "ramdisk-ca" // an agent's intermediate; never a peer
)

// Valid tells whether a peer may have the role.
func (r Role) Valid() bool {
	return slices.Contains([]Role{RoleCoordinator, RoleAgent, RoleRamdisk, RoleOperator}, r)
}

// Peer is who a verified certificate says its holder is.
type Peer struct {
	Cluster string
	Role    Role
	Name    string   // of a ramdisk: the node's id
	Group   string   // of an agent or a ramdisk
	Boot    string   // of a ramdisk: the boot id
	Key     [32]byte // SHA-256 of the certificate's SubjectPublicKeyInfo; set by PeerOf
}

// Actor is the peer as events and locks name it: "agent rack1-a".
func (p Peer) Actor() string { return string(p.Role) + " " + p.Name }

func (p Peer) uri() *url.URL {
	q := url.Values{}
	if p.Group != "" {
		q.Set("group", p.Group)
	}
	if p.Boot != "" {
		q.Set("boot", p.Boot)
	}
	return &url.URL{Scheme: "farrier", Host: p.Cluster, Path: "/" + string(p.Role) + "/" + p.Name, RawQuery: q.Encode()}
}

func peerOfCert(c *x509.Certificate) (Peer, error) {
	if len(c.URIs) != 1 || c.URIs[0].Scheme != "farrier" {
		return Peer{}, fault.New(fault.Unauthenticated, "read certificate", "it carries no farrier identity")
	}
	u := c.URIs[0]
	role, name, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if !ok || name == "" {
		return Peer{}, fault.New(fault.Unauthenticated, "read certificate", "malformed identity %q", u)
	}
	return Peer{Cluster: u.Host, Role: Role(role), Name: name, Group: u.Query().Get("group"), Boot: u.Query().Get("boot"),
		Key: sha256.Sum256(c.RawSubjectPublicKeyInfo)}, nil
}

// PeerOf reads the peer of a connection whose certificate was verified by ServerTLS or ClientTLS. Without a certificate
// it is fault.Unauthenticated.
func PeerOf(cs tls.ConnectionState) (Peer, error) {
	if len(cs.PeerCertificates) == 0 {
		return Peer{}, fault.New(fault.Unauthenticated, "check certificate", "the caller sent none").
			WithHelp("join the cluster first, or give the directory of a certificate that it issued")
	}
	return peerOfChain(cs.PeerCertificates)
}

// peerOfChain applies the rule for intermediates: leaf → root for every role, and leaf → ramdisk CA → root only for a
// ramdisk of the CA's group. The signatures were verified before.
func peerOfChain(chain []*x509.Certificate) (Peer, error) {
	p, err := peerOfCert(chain[0])
	if err != nil {
		return Peer{}, err
	}
	if !p.Role.Valid() {
		return Peer{}, fault.New(fault.Denied, "check certificate", "role %q is not a caller's", p.Role)
	}
	var issuer *x509.Certificate
	for _, c := range chain[1:] {
		if len(c.URIs) > 0 && chain[0].CheckSignatureFrom(c) == nil { // the root has none, and each call comes through here
			issuer = c
		}
	}
	if issuer == nil { // straight from the root
		if p.Role == RoleRamdisk {
			return Peer{}, fault.New(fault.Denied, "check certificate", "a ramdisk's certificate comes from its agent")
		}
		return p, nil
	}
	ca, err := peerOfCert(issuer)
	if err != nil {
		return Peer{}, err
	}
	if ca.Role != roleRamdiskCA || p.Role != RoleRamdisk || ca.Group != p.Group || ca.Cluster != p.Cluster {
		return Peer{}, fault.New(fault.Denied, "check certificate", "%s of group %q may not issue %s of group %q", ca.Actor(), ca.Group, p.Actor(), p.Group)
	}
	return p, nil
}
