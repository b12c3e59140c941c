package downlink

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// Lookup implements the RPC.
func (s *Service) Lookup(_ context.Context, q *farrierv1.LookupRequest) (*farrierv1.LookupResponse, error) {
	key, err := csrKey(q.GetCsrDer())
	if err != nil {
		return nil, connectError(err)
	}
	if len(q.Macs) == 0 {
		return nil, connectError(fault.New(fault.Invalid, "lookup", "the ramdisk names no MAC").
			WithHelp("it found no network interface with a hardware address: see its console"))
	}
	if len(q.Macs) > maxMACs {
		return nil, connectError(fault.New(fault.Invalid, "lookup", "more than %d MACs", maxMACs))
	}
	resp, edges, err := s.lookup(q, key)
	s.emit(edges)
	if err != nil {
		s.log.Warn("ramdisk lookup refused", "boot", printable(q.BootId), "err", err)
		return nil, connectError(err)
	}
	s.cfg.OnClaim(q.BootId)
	return resp, nil
}

func (s *Service) lookup(q *farrierv1.LookupRequest, key [32]byte) (*farrierv1.LookupResponse, []*farrierv1.Edge, error) {
	now := s.clock.Boottime()
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.boots[q.BootId]
	if a == nil {
		return nil, nil, s.noAttempt(q.BootId)
	}
	if a.secret == "" || subtle.ConstantTimeCompare([]byte(a.secret), []byte(q.Secret)) != 1 {
		return nil, nil, fault.New(fault.Unauthenticated, "lookup", "the secret is not that of boot attempt %s", a.id).
			WithHelp("the kernel command line must be the one that this boot attempt served")
	}
	if !a.claimed && now >= a.expires {
		return nil, nil, fault.New(fault.Expired, "lookup", "boot attempt %s ran out before the ramdisk asked", a.id).
			WithHelp("the machine took longer to boot than a boot attempt lasts; start the work again")
	}
	if len(a.macs) > 0 && !a.hasMAC(q.Macs) {
		return nil, nil, fault.New(fault.Denied, "lookup", "none of the machine's MACs is a port of node %s", a.node).
			WithHelp("the machine that booted is not the one whose BMC was told to: compare the node's ports with the machine")
	}
	if a.revoked || a.claimed && a.key != key {
		edges := s.second(a, key, now)
		return nil, edges, fault.New(fault.Denied, "lookup", "boot attempt %s was claimed by another key", a.id).
			WithHelp("two ramdisks claimed one boot: check for a copied kernel command line or another machine on the segment")
	}
	var edges []*farrierv1.Edge
	if !a.claimed {
		if cause := a.machine.differs(Machine{UUID: q.SystemUuid, Serial: q.Serial}); cause != "" {
			a.wrong = cause
			return nil, s.wrongMachine(a, now), fault.New(fault.Denied, "lookup", "%s", cause).
				WithHelp("the node's BMC address or its ports are another machine's: compare them, or look for a copied MAC")
		}
		a.claim(key)
		a.claimAt = now
		edges = append(edges, a.edge(edgeFirstContact, ""))
	}
	a.seen(now)
	resp, err := s.certificate(a, q.CsrDer)
	return resp, edges, err
}

func (a *attempt) hasMAC(macs []string) bool {
	for _, m := range macs {
		if a.macs[normalMAC(m)] {
			return true
		}
	}
	return false
}

// second revokes an attempt that another key claims. The caller holds mu.
func (s *Service) second(a *attempt, key [32]byte, now time.Duration) []*farrierv1.Edge {
	if !a.revoked {
		a.revoke(key)
	}
	if now-a.secondAt < edgeRepeat {
		return nil
	}
	a.secondAt = now
	return []*farrierv1.Edge{a.edge(edgeSecondClaim, "a second key, "+a.second+", claimed the boot attempt")}
}

// wrongMachine tells of a ramdisk on another machine than the BMC's. The caller holds mu.
func (s *Service) wrongMachine(a *attempt, now time.Duration) []*farrierv1.Edge {
	if a.wrongAt != never && now-a.wrongAt < edgeRepeat {
		return nil
	}
	a.wrongAt = now
	return []*farrierv1.Edge{a.edge(edgeWrongMachine, a.wrong)}
}

// noAttempt says why a boot id is not served. The caller holds mu.
func (s *Service) noAttempt(bootID string) error {
	if _, ok := s.closed[bootID]; ok {
		return fault.New(fault.Expired, "lookup", "the boot attempt is closed").WithHelp("stop: the work that booted this machine has ended")
	}
	return fault.New(fault.NotFound, "lookup", "this agent has no such boot attempt").
		WithHelp("ask the other agents of the group, then this one again: its node may be on its way here")
}

// certificate answers a lookup that is in order; while the last certificate has half its life left, with that one. The caller
// holds mu.
func (s *Service) certificate(a *attempt, csr []byte) (*farrierv1.LookupResponse, error) {
	if now := s.clock.Boottime(); a.chain == nil || now >= a.chainTill {
		p := identity.Peer{Cluster: s.self.Cluster, Role: identity.RoleRamdisk, Name: a.node, Group: s.self.Group, Boot: a.id}
		chain, err := s.ca.Issue(csr, p, nil, s.cfg.CertTTL)
		if err != nil {
			return nil, err
		}
		a.chain, a.chainTill = chain, now+min(s.cfg.CertTTL, s.ca.Until().Sub(s.clock.Now()))/2
	}
	return &farrierv1.LookupResponse{Node: a.node, ChainDer: a.chain, CaDer: s.cfg.Store.CADER(),
		HeartbeatInterval: durationpb.New(s.heartbeat), Agents: s.agents}, nil
}

func csrKey(der []byte) (key [32]byte, err error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return key, fault.New(fault.Invalid, "lookup", "the certificate request is not usable: %w", err)
	}
	return sha256.Sum256(csr.RawSubjectPublicKeyInfo), nil
}

func printable(s string) string {
	if len(s) > 64 {
		s = s[:64] + "..."
	}
	return s
}
