package state

import (
	"bytes"
	"fmt"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/table"
	"github.com/farrier-project/farrier/pkg/fault"
)

// The roles that the roster has.
const (
	roleCoordinator = "coordinator"
	roleAgent       = "agent"
	roleOperator    = "operator"
)

// The roster has every key that the cluster's CA has certified, for as long as a certificate of it may be good, coordinators'
// for ever. A key that is
// not in it, or is revoked in it, is refused, whatever its certificate says.

func keyLess(a, b [32]byte) bool { return bytes.Compare(a[:], b[:]) < 0 }

// ending is an entry of the order in which certificates end. It is no deadline: an idle cluster need not tick for it.
type ending struct {
	at  time.Duration
	key [32]byte
}

func (a ending) less(b ending) bool { return a.at < b.at || a.at == b.at && keyLess(a.key, b.key) }

// ends tells whether a key is forgotten in the end. A coordinator's is not: it gives itself another certificate when it was off
// for too long, and one that was removed must not pass for one that is not known yet.
func ends(c *Certificate) bool { return c.Role != roleCoordinator }

func (d *data) indexCertificate(old, new *Certificate) {
	var a, b ending
	if old != nil {
		a = ending{old.Ends, old.Key}
	}
	if new != nil {
		b = ending{new.Ends, new.Key}
	}
	table.Move(&d.endings, a, old != nil && ends(old), b, new != nil && ends(new))
}

// Admit is nil if a key is believed to be of that role and name, else fault.Denied with who took it back and how its holder
// joins again. c is the key's record, or nil.
func Admit(c *Certificate, role, name string) error {
	const op = "check certificate"
	switch {
	case c == nil:
		return fault.New(fault.Denied, op, "this cluster has not certified the key of %s %s, or its certificate has ended", role, name).
			WithHelp("%s", joinAgain(role, name))
	case c.RevokedBy != "":
		return fault.New(fault.Denied, op, "the certificate of %s %s was revoked by %s on %s%s", c.Role, c.Name, c.RevokedBy, c.RevokedAt.UTC().Format(time.DateTime+" UTC"), because(c.Reason)).
			WithHelp("%s", joinAgain(c.Role, c.Name))
	case c.Role != role || c.Name != name:
		return fault.New(fault.Denied, op, "the key is of %s %s, not of %s %s", c.Role, c.Name, role, name)
	}
	return nil
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

func joinAgain(role, name string) string {
	switch role {
	case roleCoordinator:
		return fmt.Sprintf("join again with an empty data directory and a token of `farrier coordinator token %s`", name)
	case roleAgent:
		return fmt.Sprintf("join again with an empty data directory and a token of `farrier agent token %s`", name)
	default:
		return fmt.Sprintf("join again with an empty configuration directory and a token of `farrier operator token %s`, or, from root on a coordinator's host, of `farrier-coordinator operator-token %s`", name, name)
	}
}

// life is how long a key that is certified now stays in the roster. Replicated time is never ahead of the clock that ends
// the certificate, so it is not forgotten too early.
func life(ttl time.Duration) time.Duration {
	if ttl <= 0 {
		return CertificateTTL
	}
	return min(ttl, MaxCertificateTTL)
}

// checkKey refuses a key that may not be certified for that role and name: one that was revoked is never believed again, and
// one key has one holder.
func (s *State) checkKey(key [32]byte, role, name string) error {
	if c := s.roster.Find(key); c != nil {
		return Admit(c, role, name)
	}
	if s.roster.Len() >= MaxCertificates && !s.anyRevoked() {
		return fault.New(fault.Busy, "certify key", "%d certificates are in use", MaxCertificates).
			WithHelp("take those back that are not needed: `farrier operator list --all` shows them")
	}
	return nil
}

// certify puts a key in the roster, or renews it there. checkKey was asked.
func (s *State) certify(x command.Issued, invitedBy string) {
	c := Certificate{Key: x.Key, JoinedAt: s.header.At, InvitedBy: invitedBy}
	if old := s.roster.Find(x.Key); old != nil {
		c = *old
		c.RenewedAt = s.header.At
	} else if s.roster.Len() >= MaxCertificates {
		s.forgetRevoked()
	}
	c.Role, c.Name, c.Group = x.Role, x.Name, x.Group
	c.Ends = max(c.Ends, s.root.elapsed+life(x.TTL))
	s.roster.Put(&s.log, &c)
}

// renewCertificate says that a key is certified anew.
func (s *State) renewCertificate(c command.RenewCertificate) command.Result {
	old := s.roster.Find(c.Key)
	if old == nil {
		return refuse(fault.New(fault.Denied, "renew certificate", "this cluster has not certified the key").
			WithHelp("join again with a new token"))
	}
	if err := Admit(old, old.Role, old.Name); err != nil {
		return refuse(err)
	}
	s.certify(command.Issued{Key: old.Key, Role: old.Role, Name: old.Name, Group: old.Group, TTL: c.TTL}, "")
	return ok()
}

// holders visits the believed keys of a role and name.
func (d *data) holders(role, name string, fn func(*Certificate)) {
	var found []*Certificate
	d.roster.Scan(func(c *Certificate) bool {
		if c.Role == role && c.Name == name && c.RevokedBy == "" {
			found = append(found, c)
		}
		return true
	})
	for _, c := range found {
		fn(c)
	}
}

// revoke takes back all certificates of a role and name but that of one key, and of an operator the unused join tokens that
// it made: whoever has the key could join with one. It answers how many certificates it was.
func (s *State) revoke(role, name string, but [32]byte, reason string) (n int) {
	s.holders(role, name, func(old *Certificate) {
		if old.Key == but {
			return
		}
		c := *old
		c.RevokedBy, c.RevokedAt, c.Reason = s.header.Actor, s.header.At, reason
		if c.RevokedBy == "" {
			c.RevokedBy = "nobody"
		}
		s.roster.Put(&s.log, &c)
		s.emit(EventCertificate, nil, "role", role, "name", name, "key", fmt.Sprintf("%x", c.Key[:8]), "state", "revoked", "reason", reason)
		n++
	})
	if role != roleOperator {
		return n
	}
	var tokens []*JoinToken
	s.joinTokens.Scan(func(t *JoinToken) bool {
		if t.By == role+" "+name && t.UsedBy == ([32]byte{}) {
			tokens = append(tokens, t)
		}
		return true
	})
	for _, t := range tokens {
		s.joinTokens.Drop(&s.log, t.ID)
		s.emit(EventJoinToken, nil, "token", t.ID, "state", "revoked", "role", t.Role, "name", t.Name)
	}
	return n
}

// revokeCertificates takes an operator's certificates back. An agent's and a coordinator's go when they are removed, for more
// than a certificate has to go with them.
func (s *State) revokeCertificates(c command.RevokeCertificates) command.Result {
	const op = "revoke certificates"
	switch {
	case c.Role != roleOperator:
		return refuse(fault.New(fault.Invalid, op, "certificates of role %q are not revoked by name", c.Role).
			WithHelp("remove its holder: farrier agent remove NAME, farrier coordinator remove NAME"))
	case len(c.Reason) > MaxReason:
		return refuse(fault.New(fault.TooLarge, op, "the reason has %d bytes; at most %d", len(c.Reason), MaxReason).WithDetail(&fault.FieldDetail{Field: "reason"}))
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
func (s *State) recoverRoster(c command.RecoverRoster) command.Result {
	ttl := life(0)
	for _, x := range c.Issued { // as the lost coordinators were set, too
		ttl = max(ttl, life(x.TTL))
	}
	var kept []*Certificate
	s.roster.Scan(func(c *Certificate) bool { kept = append(kept, c); return true })
	for _, old := range kept {
		if old.RevokedBy == "" && old.Role == roleCoordinator {
			s.revoke(old.Role, old.Name, [32]byte{}, "the cluster was made anew without it")
		}
		next := *s.roster.Find(old.Key)
		next.Ends = s.root.elapsed + ttl
		s.roster.Put(&s.log, &next)
	}
	var tokens []string
	s.joinTokens.Scan(func(t *JoinToken) bool { tokens = append(tokens, t.ID); return true })
	for _, id := range tokens {
		s.joinTokens.Drop(&s.log, id)
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
func (s *State) forgetCertificates() {
	for {
		first, some := s.endings.Min()
		if !some || first.at > s.root.elapsed {
			return
		}
		s.roster.Drop(&s.log, first.key)
	}
}

// anyRevoked tells whether a revoked key could make room: an agent's or operator's, which is refused as an unknown one, too.
func (s *State) anyRevoked() bool { _, some := s.firstRevoked(); return some }

func (s *State) firstRevoked() (key [32]byte, some bool) {
	s.endings.Scan(func(e ending) bool {
		c := s.roster.Find(e.key)
		if some = c.RevokedBy != ""; some {
			key = e.key
		}
		return !some
	})
	return key, some
}

func (s *State) forgetRevoked() {
	if key, some := s.firstRevoked(); some {
		s.roster.Drop(&s.log, key)
	}
}

// Roster is a number that differs whenever the roster does.
func (d *data) Roster() uint64 { return d.roster.Sum() }

// KeepMembership takes over from the state that this one replaces who belongs to the cluster: the roster, the join tokens, and
// where coordinators answer. A restore of an old archive must neither bring a revoked key back nor lock anybody out who is
// let in today. What ends with elapsed has as long as it had.
func (s *State) KeepMembership(living *State) {
	shift := s.root.elapsed - living.root.elapsed
	s.roster.CopyFrom(s.log.Hasher(), &living.roster, func(c *Certificate) { c.Ends += shift })
	s.joinTokens.CopyFrom(s.log.Hasher(), &living.joinTokens, func(t *JoinToken) { t.Expires += shift })
	s.members.CopyFrom(s.log.Hasher(), &living.members, func(*command.Member) {})
	var back []string // removed in the archive, and believed again since
	s.agents.Scan(func(a *Agent) bool {
		if now := living.agent(a.Name); a.Removed && (now == nil || !now.Removed) {
			back = append(back, a.Name)
		}
		return true
	})
	for _, name := range back {
		s.agents.Unload(s.log.Hasher(), name)
	}
	clear(s.memberCache)
}
