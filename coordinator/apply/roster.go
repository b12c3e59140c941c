package apply

import (
	"fmt"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// life is how long a key that is certified now stays in the roster. Replicated time is never ahead of the clock that ends
// the certificate, so it is not forgotten too early.
func life(ttl time.Duration) time.Duration {
	if ttl <= 0 {
		return state.CertificateTTL
	}
	return min(ttl, state.MaxCertificateTTL)
}

// checkKey refuses a key that may not be certified for that role and name: one that was revoked is never believed again, and
// one key has one holder.
func (s *Applier) checkKey(key [32]byte, role, name string) error {
	if c := s.Certificates.Find(key); c != nil {
		return state.Admit(c, role, name)
	}
	if s.Certificates.Len() >= state.MaxCertificates && !s.anyRevoked() {
		return fault.New(fault.Busy, "certify key", "%d certificates are in use", state.MaxCertificates).
			WithHelp("take those back that are not needed: `farrier operator list --all` shows them")
	}
	return nil
}

// certify puts a key in the roster, or renews it there. checkKey was asked.
func (s *Applier) certify(x command.Issued, invitedBy string) {
	c := state.Certificate{Key: x.Key, JoinedAt: s.Header.At, InvitedBy: invitedBy}
	if old := s.Certificates.Find(x.Key); old != nil {
		c = *old
		c.RenewedAt = s.Header.At
	} else if s.Certificates.Len() >= state.MaxCertificates {
		s.forgetRevoked()
	}
	c.Role, c.Name, c.Group = x.Role, x.Name, x.Group
	c.Ends = max(c.Ends, s.Root.Elapsed+life(x.TTL))
	s.Certificates.Put(&s.Log, &c)
}

// renewCertificate says that a key is certified anew.
func (s *Applier) renewCertificate(c command.RenewCertificate) command.Result {
	old := s.Certificates.Find(c.Key)
	if old == nil {
		return refuse(fault.New(fault.Denied, "renew certificate", "this cluster has not certified the key").
			WithHelp("join again with a new token"))
	}
	if err := state.Admit(old, old.Role, old.Name); err != nil {
		return refuse(err)
	}
	s.certify(command.Issued{Key: old.Key, Role: old.Role, Name: old.Name, Group: old.Group, TTL: c.TTL}, "")
	return ok()
}

// revoke takes back all certificates of a role and name but that of one key, and of an operator the unused join tokens that
// it made: whoever has the key could join with one. It answers how many certificates it was.
func (s *Applier) revoke(role, name string, but [32]byte, reason string) (n int) {
	s.Holders(role, name, func(old *state.Certificate) {
		if old.Key == but {
			return
		}
		c := *old
		c.RevokedBy, c.RevokedAt, c.Reason = s.Header.Actor, s.Header.At, reason
		if c.RevokedBy == "" {
			c.RevokedBy = "nobody"
		}
		s.Certificates.Put(&s.Log, &c)
		s.Emit(state.EventCertificate, nil, "role", role, "name", name, "key", fmt.Sprintf("%x", c.Key[:8]), "state", "revoked", "reason", reason)
		n++
	})
	if role != state.RoleOperator {
		return n
	}
	var tokens []*state.JoinToken
	s.JoinTokens.Scan(func(t *state.JoinToken) bool {
		if t.By == role+" "+name && t.UsedBy == ([32]byte{}) {
			tokens = append(tokens, t)
		}
		return true
	})
	for _, t := range tokens {
		s.JoinTokens.Drop(&s.Log, t.ID)
		s.Emit(state.EventJoinToken, nil, "token", t.ID, "state", "revoked", "role", t.Role, "name", t.Name)
	}
	return n
}

// revokeCertificates takes an operator's certificates back. An agent's and a coordinator's go when they are removed, for more
// than a certificate has to go with them.
func (s *Applier) revokeCertificates(c command.RevokeCertificates) command.Result {
	const op = "revoke certificates"
	switch {
	case c.Role != state.RoleOperator:
		return refuse(fault.New(fault.Invalid, op, "certificates of role %q are not revoked by name", c.Role).
			WithHelp("remove its holder: farrier agent remove NAME, farrier coordinator remove NAME"))
	case len(c.Reason) > state.MaxReason:
		return refuse(fault.New(fault.TooLarge, op, "the reason has %d bytes; at most %d", len(c.Reason), state.MaxReason).WithDetail(&fault.FieldDetail{Field: "reason"}))
	}
	n := s.revoke(c.Role, c.Name, [32]byte{}, c.Reason)
	if n == 0 {
		return refuse(fault.New(fault.NotFound, op, "operator %s has no certificate that is believed", c.Name).WithHelp("`farrier operator list` shows who has one"))
	}
	return command.Result{Count: uint64(n)}
}

// recoverRoster takes over the roster of a lost cluster from its archive. Its coordinators are no part of the new one, and
// nobody joins by its tokens. Agents and people go on with what they have, for as long as a certificate that was renewed after
// the archive was made may be good; whom the lost cluster turned away after that, nobody knows.
func (s *Applier) recoverRoster(c command.RecoverRoster) command.Result {
	ttl := life(0)
	for _, x := range c.Issued { // as the lost coordinators were set, too
		ttl = max(ttl, life(x.TTL))
	}
	var kept []*state.Certificate
	s.Certificates.Scan(func(c *state.Certificate) bool { kept = append(kept, c); return true })
	for _, old := range kept {
		if old.RevokedBy == "" && old.Role == state.RoleCoordinator {
			s.revoke(old.Role, old.Name, [32]byte{}, "the cluster was made anew without it")
		}
		next := *s.Certificates.Find(old.Key)
		next.Ends = s.Root.Elapsed + ttl
		s.Certificates.Put(&s.Log, &next)
	}
	var tokens []string
	s.JoinTokens.Scan(func(t *state.JoinToken) bool { tokens = append(tokens, t.ID); return true })
	for _, id := range tokens {
		s.JoinTokens.Drop(&s.Log, id)
	}
	for _, x := range c.Issued {
		if err := s.checkKey(x.Key, x.Role, x.Name); err != nil {
			return refuse(err)
		}
		s.certify(x, "")
	}
	return ok()
}

// forgetCertificates forgets keys of which no certificate is good any more.
func (s *Applier) forgetCertificates() {
	for key, some := s.EndedCertificate(); some; key, some = s.EndedCertificate() {
		s.Certificates.Drop(&s.Log, key)
	}
}

// anyRevoked tells whether a revoked key could make room: an agent's or operator's, which is refused as an unknown one, too.
func (s *Applier) anyRevoked() bool { _, some := s.RevokedCertificate(); return some }

func (s *Applier) forgetRevoked() {
	if key, some := s.RevokedCertificate(); some {
		s.Certificates.Drop(&s.Log, key)
	}
}
