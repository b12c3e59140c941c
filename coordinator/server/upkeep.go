package server

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/membership"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// Timings of upkeep.
const (
	announceEvery = time.Second
	renewLook     = time.Minute // also between tries
	callTimeout   = 15 * time.Second
)

// reach is nil if the coordinator answers at its Raft address, with a certificate that was not taken back. It names none of the
// port's protocols, so that the other side closes the connection after the handshake.
func (s *server) reach(ctx context.Context, id, raftAddress string) error {
	cfg := identity.ClientTLS(s.id, identity.RoleCoordinator)
	cfg.NextProtos = nil
	conn, err := (&tls.Dialer{NetDialer: &net.Dialer{Timeout: 2 * time.Second}, Config: cfg}).DialContext(ctx, "tcp", raftAddress)
	if err != nil {
		return fault.New(fault.Unavailable, "reach coordinator", "%w", err)
	}
	peer, err := identity.PeerOf(conn.(*tls.Conn).ConnectionState())
	if err == nil && peer.Name != id {
		err = fault.New(fault.Denied, "reach coordinator", "%s answers at the address of %s", peer.Name, id)
	}
	if err == nil {
		err = state.Admit(s.replica.View().Certificate(peer.Key), string(peer.Role), peer.Name)
	}
	return errors.Join(err, conn.Close())
}

// record is what this member says of itself.
func (s *server) record() command.Member {
	return command.Member{ID: s.cfg.Name, RaftAddress: s.ls.at.Raft, APIAddress: s.ls.at.API, RackAddress: s.ls.at.Rack,
		Version: s.env.Version, Level: membership.Level}
}

// announce keeps this member's record true: addresses and version may have changed since the last start. It never
// adds a record, which Join and Rejoin do, but to an empty table: a member that was removed stays removed.
func (s *server) announce(ctx context.Context) error {
	wake, stop := changes{s.replica}.Subscribe()
	defer stop()
	tick := time.NewTicker(announceEvery)
	defer tick.Stop()
	warned, tried := false, time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-tick.C:
			warned = s.warnAlone(warned)
		}
		current, due := s.ownRecord()
		if current {
			wake = nil // a look makes a view of the state, for which the next change pays: from now on one each tick is enough
		}
		if !due || time.Since(tried) < announceEvery {
			continue
		}
		tried = time.Now()
		if err := s.putMember(ctx); err != nil {
			s.env.Log.Debug("this member's record is not up to date yet", "err", err)
		}
	}
}

// ownRecord tells whether the record is there and true, and whether it is to be written.
func (s *server) ownRecord() (current, due bool) {
	v := s.replica.View()
	if own, known := v.Member(s.cfg.Name); known {
		current = *own == s.record()
		return current, !current
	}
	empty := true
	v.Members(func(*command.Member) bool { empty = false; return false })
	_, leading := s.replica.Leading()
	return false, leading && empty
}

// warnAlone says once that a cluster of one has nothing to fall back on.
func (s *server) warnAlone(warned bool) bool {
	if _, leading := s.replica.Leading(); warned || !leading || len(s.replica.Servers()) > 1 {
		return warned
	}
	s.env.Log.Warn("one coordinator only: when it is lost, so is the cluster; join two more with farrier-coordinator join")
	return true
}

func (s *server) putMember(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	m := s.record()
	client := fc.NewClusterServiceClient(httpClient(s.outward), "https://"+s.ls.bound.API)
	_, err := client.PutMember(ctx, &farrierv1.PutMemberRequest{FeatureLevel: m.Level, Member: &farrierv1.Member{
		Id: m.ID, RaftAddress: m.RaftAddress, ApiAddress: m.APIAddress, RackAddress: m.RackAddress, Version: m.Version}})
	return err
}

// listed waits, for renewLook at most, until the state has a record of this member: who has none is refused a certificate.
func (s *server) listed(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, renewLook)
	defer cancel()
	wake, stop := changes{s.replica}.Subscribe()
	defer stop()
	for {
		if _, known := s.replica.View().Member(s.cfg.Name); known {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
	}
}

// renew asks for a fresh certificate at two thirds of the old one's life.
func (s *server) renew(ctx context.Context) error {
	tick := time.NewTicker(renewLook)
	defer tick.Stop()
	s.listed(ctx)
	for {
		if !s.env.Clock.Now().Before(s.id.RenewAt()) {
			if err := s.renewOnce(ctx); err != nil {
				s.env.Log.Warn("the certificate was not renewed; trying again in a minute", "err", err, "ends", s.id.Certificate().Leaf.NotAfter)
			} else {
				s.env.Log.Info("the certificate was renewed", "ends", s.id.Certificate().Leaf.NotAfter)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *server) renewOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	csr, err := s.id.CSR()
	if err != nil {
		return err
	}
	res, err := fc.NewJoinServiceClient(httpClient(s.outward), "https://"+s.ls.bound.API).Renew(ctx, &farrierv1.RenewRequest{CsrDer: csr})
	if err != nil {
		return err
	}
	return s.id.Put(res.GetChainDer(), res.GetCaDer())
}
