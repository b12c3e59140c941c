package membership

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/message"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/request"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// Bounds of join tokens. TTLs count in replicated time.
const (
	defaultTokenTTL = 10 * time.Minute
	maxTokenTTL     = 24 * time.Hour
	maxCSR          = 8 << 10 // bytes
)

// CreateJoinToken implements ClusterService. The cluster stores the secret's hash; the secret is in the answer
// only. With a request id it is derived from it, so that a repeat answers the same token.
//
// Root on a coordinator's host has the sealing keys, and with them the CA: that a coordinator makes an operator's token
// gives it nothing new, and is the way back when every operator's certificate has ended.
func (s *Service) CreateJoinToken(ctx context.Context, req *farrierv1.CreateJoinTokenRequest) (*farrierv1.CreateJoinTokenResponse, error) {
	if c := access.Of(ctx); c.Role == identity.RoleCoordinator && identity.Role(req.GetRole()) != identity.RoleOperator {
		return nil, fault.New(fault.Denied, "create join token", "a coordinator makes tokens for operators only").
			WithHelp("as an operator: farrier %s token %s", refusal.Clip(req.GetRole()), refusal.Clip(req.GetName()))
	}
	t, ttl, err := s.newToken(ctx, req)
	if err == nil && t.Role == identity.RoleCoordinator {
		err = s.checkFree(s.cfg.Desk.View(), t.Name, false)
	}
	if err == nil {
		_, err = s.cfg.Desk.Propose(ctx, command.CreateJoinToken{ID: t.ID, Role: string(t.Role), Name: t.Name, Group: t.Group, Hash: t.Hash(), TTL: ttl})
	}
	if err != nil {
		return nil, fault.Wrap("create join token", err)
	}
	return &farrierv1.CreateJoinTokenResponse{Token: t.Encode(), ExpiresAt: timestamppb.New(s.cfg.Clock.Now().Add(ttl))}, nil
}

func (s *Service) newToken(ctx context.Context, req *farrierv1.CreateJoinTokenRequest) (t identity.JoinToken, ttl time.Duration, err error) {
	role := identity.Role(req.GetRole())
	switch role {
	case identity.RoleCoordinator, identity.RoleAgent, identity.RoleOperator:
	default:
		return t, 0, refusal.Invalid("role", "%q cannot join", refusal.Clip(req.GetRole())).WithHelp("the roles are coordinator, agent, operator")
	}
	if err := message.Name("name", req.GetName()); err != nil {
		return t, 0, err
	}
	group := req.GetGroup()
	switch {
	case role == identity.RoleAgent && group == "":
		group = message.DefaultGroup
	case role != identity.RoleAgent && group != "":
		return t, 0, refusal.Invalid("group", "only an agent has a group")
	}
	if group != "" {
		if err := message.Name("group", group); err != nil {
			return t, 0, err
		}
	}
	ttl = defaultTokenTTL
	if req.GetTtl() != nil {
		ttl = req.GetTtl().AsDuration()
	}
	if ttl <= 0 || ttl > maxTokenTTL {
		return t, 0, refusal.Invalid("ttl", "%v is not between 1 ns and %v", ttl, maxTokenTTL)
	}
	v := s.cfg.Desk.View()
	ca, err := s.authority(v)
	if err != nil {
		return t, 0, err
	}
	t = identity.NewJoinToken(ca.Hash(), role, req.GetName(), group, s.addresses(v, apiAddress))
	if id := request.ID(ctx); !id.IsZero() {
		data := append([]byte(access.Of(ctx).Actor()+"\x00"+id.Client+"\x00"), id.Digest[:]...)
		sum := s.cfg.Keyring.Derive("join token", append(data, byte(id.Seq), byte(id.Seq>>8), byte(id.Seq>>16), byte(id.Seq>>24),
			byte(id.Seq>>32), byte(id.Seq>>40), byte(id.Seq>>48), byte(id.Seq>>56)))
		t.ID, t.Secret = hex.EncodeToString(sum[:8]), sum[8:24]
	}
	return t, ttl, nil
}

// Join implements JoinService. The token is used up before anything is issued; a join that is cut after that is
// repeated with the same token and key.
func (s *Service) Join(ctx context.Context, req *farrierv1.JoinRequest) (*farrierv1.JoinResponse, error) {
	out, err := s.join(ctx, req)
	if err != nil {
		s.cfg.Log.Warn("a join was refused", "err", err)
		return nil, fault.Wrap("join", err)
	}
	s.cfg.Log.Info("joined", "name", out.GetName(), "group", out.GetGroup(), "version", req.GetVersion())
	return out, nil
}

func (s *Service) join(ctx context.Context, req *farrierv1.JoinRequest) (*farrierv1.JoinResponse, error) {
	v := s.cfg.Desk.View()
	t, used, err := s.checkToken(v, req.GetToken())
	if err != nil {
		return nil, err
	}
	if err := s.checkJoin(v, t, req); err != nil {
		return nil, err
	}
	key, err := keyOf(req.GetCsrDer())
	if err == nil && used != nil && *used != key {
		err = usedUp(t)
	}
	if err == nil && t.Role == identity.RoleCoordinator {
		err = s.checkFree(v, t.Name, used != nil)
	}
	if err != nil {
		return nil, err
	}
	ca, err := s.authority(v)
	if err != nil {
		return nil, err
	}
	if _, err := s.cfg.Desk.Propose(ctx, command.UseJoinToken{ID: t.ID, Hash: t.Hash(), Role: string(t.Role), Key: key, TTL: s.cfg.CertificateTTL}); err != nil {
		return nil, err
	}
	peer := identity.Peer{Cluster: v.Cluster().ID, Role: t.Role, Name: t.Name, Group: t.Group}
	out := &farrierv1.JoinResponse{CaDer: ca.CertDER(), ClusterId: peer.Cluster, Name: t.Name, Group: t.Group}
	if out.ChainDer, err = ca.Issue(req.GetCsrDer(), peer, hostsOf(req), s.cfg.CertificateTTL); err != nil {
		return nil, err
	}
	switch t.Role {
	case identity.RoleAgent:
		if out.IntermediateChainDer, err = ca.IssueIntermediate(req.GetIntermediateCsrDer(), peer, s.cfg.CertificateTTL); err != nil {
			return nil, err
		}
	case identity.RoleCoordinator:
		res, err := s.cfg.Desk.ProposeAlso(ctx, command.PutMember{Member: memberOf(t.Name, req)})
		if err == nil {
			err = res[0].Err
		}
		if err != nil {
			return nil, err
		}
		out.Keyring = s.cfg.Keyring.Marshal()
		v = s.cfg.Desk.View()
	}
	out.RackAddresses, out.ApiAddresses = s.addresses(v, rackAddress), s.addresses(v, apiAddress)
	return out, nil
}

// checkToken finds the token that the request carries, and the key that used it already. A wrong secret is told from a
// used or expired token by nobody who does not have the secret.
func (s *Service) checkToken(v *state.View, text string) (t identity.JoinToken, used *[32]byte, err error) {
	if t, err = identity.ParseJoinToken(text); err != nil {
		return t, nil, err
	}
	kept, ok := v.JoinToken(t.ID)
	if !ok {
		return t, nil, usedUp(t)
	}
	if hash := t.Hash(); subtle.ConstantTimeCompare(hash[:], kept.Hash[:]) != 1 {
		return t, nil, fault.New(fault.Unauthenticated, "check token", "the join token's secret is wrong").
			WithHelp("paste the whole token, as it was printed")
	}
	t.Role, t.Name, t.Group = identity.Role(kept.Role), kept.Name, kept.Group // what the cluster wrote down holds
	if kept.UsedBy != ([32]byte{}) {
		used = &kept.UsedBy
	}
	return t, used, nil
}

func usedUp(t identity.JoinToken) error {
	again := fmt.Sprintf("farrier %s token %s", t.Role, t.Name)
	if t.Group != "" {
		again += " --group " + t.Group
	}
	return fault.New(fault.Expired, "check token", "the join token has expired or was used").WithHelp("make a new one: %s", again)
}

// keyOf is the SHA-256 of the public key that a certificate request is for.
func keyOf(csr []byte) (key [32]byte, err error) {
	r, err := x509.ParseCertificateRequest(csr)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		return key, refusal.Invalid("csr_der", "it is no certificate request: %v", err)
	}
	return sha256.Sum256(r.RawSubjectPublicKeyInfo), nil
}

// checkJoin checks all that could fail after the token was used.
func (s *Service) checkJoin(v *state.View, t identity.JoinToken, req *farrierv1.JoinRequest) error {
	if n := len(req.GetCsrDer()); n == 0 || n > maxCSR || len(req.GetIntermediateCsrDer()) > maxCSR {
		return refusal.Invalid("csr_der", "a certificate request of at most %d bytes is needed", maxCSR)
	}
	switch t.Role {
	case identity.RoleAgent:
		if level := v.Cluster().Level; req.GetFeatureLevel() > level {
			return fault.New(fault.Version, "", "the cluster is at feature level %d, and agent %s is newer: %d", level, t.Name, req.GetFeatureLevel()).
				WithHelp("upgrade the coordinators first")
		}
		if len(req.GetIntermediateCsrDer()) == 0 {
			return refusal.Invalid("intermediate_csr_der", "an agent needs a ramdisk CA")
		}
	case identity.RoleCoordinator:
		return s.checkMember(memberOf(t.Name, req))
	}
	return nil
}

// checkFree refuses a coordinator whose name is a member's. A member that comes back empty has forgotten its votes and
// what it acknowledged: while it still counts, committed entries can be lost. again is set when the same key joined with
// the same token before, and its join was cut: then it has a record, but was never reached.
func (s *Service) checkFree(v *state.View, name string, again bool) error {
	servers, err := s.cfg.Cluster.Servers()
	if err != nil {
		return fault.Wrap("read members", err)
	}
	_, member := v.Member(name)
	if slices.ContainsFunc(servers, func(x Server) bool { return x.ID == name }) || member && !again {
		return fault.New(fault.Exists, "", "coordinator %s is a member already", name).
			WithHelp("if its machine or its disk is gone, farrier coordinator remove %s first; if only its log is damaged, farrier-coordinator rejoin there", name)
	}
	return nil
}

func memberOf(name string, req *farrierv1.JoinRequest) command.Member {
	return command.Member{ID: name, RaftAddress: req.GetRaftAddress(), APIAddress: req.GetApiAddress(),
		RackAddress: req.GetRackAddress(), Version: req.GetVersion(), Level: req.GetFeatureLevel()}
}

// hostsOf are the names under which a joining coordinator is reached.
func hostsOf(req *farrierv1.JoinRequest) []string {
	var hosts []string
	for _, a := range []string{req.GetApiAddress(), req.GetRackAddress()} {
		if host, _, err := net.SplitHostPort(a); err == nil {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// Renew implements JoinService. The new certificate has the key, role, name and group of the old one.
func (s *Service) Renew(ctx context.Context, req *farrierv1.RenewRequest) (*farrierv1.RenewResponse, error) {
	out, err := s.renew(ctx, access.Of(ctx), req)
	return out, fault.Wrap("renew certificate", err)
}

// present refuses a coordinator that is no member and an agent that was removed: what they have ends with their
// certificate. An agent that never had a session is not known, and was not removed either.
func present(v *state.View, c access.Caller) error {
	_, member := v.Member(c.Name)
	switch {
	case c.Role == identity.RoleCoordinator && !member:
	case c.Role == identity.RoleAgent && v.Removed(c.Name):
	default:
		return nil
	}
	return fault.New(fault.Denied, "", "%s is not of this cluster, or not any more", c.Actor()).WithHelp("it joins again with a new token: farrier %s token %s", c.Role, c.Name)
}

func (s *Service) renew(ctx context.Context, c access.Caller, req *farrierv1.RenewRequest) (*farrierv1.RenewResponse, error) {
	if n := len(req.GetCsrDer()); n == 0 || n > maxCSR || len(req.GetIntermediateCsrDer()) > maxCSR {
		return nil, refusal.Invalid("csr_der", "a certificate request of at most %d bytes is needed", maxCSR)
	}
	v := s.cfg.Desk.View()
	if err := present(v, c); err != nil {
		return nil, err
	}
	key, err := keyOf(req.GetCsrDer())
	if err == nil && key != c.Key {
		err = refusal.Invalid("csr_der", "it is for another key than the certificate's: a new key joins with a new token")
	}
	if err != nil {
		return nil, err
	}
	if len(req.GetIntermediateCsrDer()) > 0 && c.Role != identity.RoleAgent {
		return nil, fault.New(fault.Denied, "", "only an agent has a ramdisk CA")
	}
	if _, err := s.cfg.Desk.Propose(ctx, command.RenewCertificate{Key: key, TTL: s.cfg.CertificateTTL}); err != nil {
		return nil, err
	}
	ca, err := s.authority(v)
	if err != nil {
		return nil, err
	}
	peer := identity.Peer{Cluster: v.Cluster().ID, Role: c.Role, Name: c.Name, Group: c.Group}
	var hosts []string
	if m, ok := memberByID(v, c.Name); ok && c.Role == identity.RoleCoordinator {
		hosts = hostsOf(&farrierv1.JoinRequest{ApiAddress: m.APIAddress, RackAddress: m.RackAddress})
	}
	out := &farrierv1.RenewResponse{CaDer: ca.CertDER(), RackAddresses: s.addresses(v, rackAddress), ApiAddresses: s.addresses(v, apiAddress)}
	if out.ChainDer, err = ca.Issue(req.GetCsrDer(), peer, hosts, s.cfg.CertificateTTL); err != nil {
		return nil, err
	}
	if len(req.GetIntermediateCsrDer()) > 0 {
		out.IntermediateChainDer, err = ca.IssueIntermediate(req.GetIntermediateCsrDer(), peer, s.cfg.CertificateTTL)
	}
	return out, err
}
