package state

import (
	"bytes"
	"fmt"
	"time"

	"github.com/farrier-project/farrier/coordinator/table"
	"github.com/farrier-project/farrier/pkg/fault"
)

// The roles that the roster has.
const (
	RoleCoordinator = "coordinator"
	RoleAgent       = "agent"
	RoleOperator    = "operator"
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
func ends(c *Certificate) bool { return c.Role != RoleCoordinator }

func (d *Tables) indexCertificate(old, new *Certificate) {
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
	case RoleCoordinator:
		return fmt.Sprintf("join again with an empty data directory and a token of `farrier coordinator token %s`", name)
	case RoleAgent:
		return fmt.Sprintf("join again with an empty data directory and a token of `farrier agent token %s`", name)
	default:
		return fmt.Sprintf("join again with an empty configuration directory and a token of `farrier operator token %s`, or, from root on a coordinator's host, of `farrier-coordinator operator-token %s`", name, name)
	}
}

// Holders visits the believed keys of a role and name.
func (d *Tables) Holders(role, name string, fn func(*Certificate)) {
	var found []*Certificate
	d.Certificates.Scan(func(c *Certificate) bool {
		if c.Role == role && c.Name == name && c.RevokedBy == "" {
			found = append(found, c)
		}
		return true
	})
	for _, c := range found {
		fn(c)
	}
}

// EndedCertificate is a key of which no certificate is good any more, if there is one.
func (d *Tables) EndedCertificate() (key [32]byte, some bool) {
	first, some := d.endings.Min()
	return first.key, some && first.at <= d.Root.Elapsed
}

// RevokedCertificate is the revoked key, of those that end, which ends first.
func (d *Tables) RevokedCertificate() (key [32]byte, some bool) {
	d.endings.Scan(func(e ending) bool {
		c := d.Certificates.Find(e.key)
		if some = c.RevokedBy != ""; some {
			key = e.key
		}
		return !some
	})
	return key, some
}
