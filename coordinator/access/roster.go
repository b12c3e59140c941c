package access

import (
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/identity"
)

// Admitted is nil if the roster of a view has the keys behind a call: the caller's, and that of the coordinator that sent the
// call on. final tells that a refusal holds in every later view as well.
func Admitted(v *state.View, c Caller) (final bool, err error) {
	for _, p := range [...]identity.Peer{c.Via, c.Peer} {
		if p.Role == "" { // nobody: an anonymous caller, or one that called us itself
			continue
		}
		rec := v.Certificate(p.Key)
		if err := state.Admit(rec, string(p.Role), p.Name); err != nil {
			return rec != nil, err
		}
	}
	return false, nil
}

// Certified tells whether a role and name has a certificate that is believed.
func Certified(v *state.View, role identity.Role, name string) (yes bool) {
	v.Certificates(func(c *state.Certificate) bool {
		yes = c.Role == string(role) && c.Name == name && c.RevokedBy == ""
		return !yes
	})
	return yes
}
