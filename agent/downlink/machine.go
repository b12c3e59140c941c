package downlink

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Machine is what tells one machine from another. Empty: not known.
type Machine struct {
	UUID   string // SMBIOS UUID
	Serial string
}

// Expect says which machine the BMC of the boot attempt's node belongs to. A ramdisk on another is refused, and the edge
// wrong_machine goes up. An agent that takes the node over between this and the first contact is told by the assignment.
func (s *Service) Expect(bootID string, m Machine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.boots[bootID]; a != nil {
		a.machine = m
	}
}

// differs says how the machine under a ramdisk is another than the BMC's, m, or "". One agreement is enough: there are BMCs
// that give the main board's serial number for the system's, and others with a UUID of their own.
func (m Machine) differs(found Machine) string {
	var compared []string
	if theirs, ours := uuidBytes(found.UUID), uuidBytes(m.UUID); theirs != nil && ours != nil {
		if slices.Equal(theirs, ours) || slices.Equal(theirs, swapped(ours)) {
			return ""
		}
		compared = append(compared, fmt.Sprintf("system UUID %s, while the BMC's is %s", printable(found.UUID), printable(m.UUID)))
	}
	if theirs, ours := serialText(found.Serial), serialText(m.Serial); theirs != "" && ours != "" {
		if strings.EqualFold(theirs, ours) {
			return ""
		}
		compared = append(compared, fmt.Sprintf("serial number %q, while the BMC's is %q", printable(theirs), printable(ours)))
	}
	if compared == nil {
		return ""
	}
	return "another machine has booted than the one that the BMC controls: it has " + strings.Join(compared, "; ")
}

// uuidBytes is nil unless text is a UUID that says something.
func uuidBytes(text string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(text), "-", ""))
	if err != nil || len(b) != 16 {
		return nil
	}
	for _, blank := range []byte{0, 0xff} {
		if !slices.ContainsFunc(b, func(c byte) bool { return c != blank }) {
			return nil
		}
	}
	return b
}

// swapped is the UUID with its first three fields in the other byte order, as SMBIOS before 2.6 had them.
func swapped(u []byte) []byte {
	u = slices.Clone(u)
	slices.Reverse(u[:4])
	slices.Reverse(u[4:6])
	slices.Reverse(u[6:8])
	return u
}

// serialText is "" for what firmware says that was never filled in.
func serialText(s string) string {
	s = strings.TrimSpace(s)
	switch strings.ToLower(s) {
	case "not specified", "to be filled by o.e.m.", "default string", "none", "n/a", "unknown", "system serial number", "0123456789", "123456789":
		return ""
	}
	if strings.Trim(s, "0") == "" || strings.Trim(s, "fF") == "" {
		return ""
	}
	return s
}
