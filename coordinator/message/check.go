package message

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/farrier-project/farrier/coordinator/refusal"
)

// Bounds of what a request may carry.
const (
	MaxName       = 255      // characters (Ironic: nodes.name)
	MaxText       = 4096     // of descriptions and reasons
	maxClass      = 80       // of resource classes (Ironic: nodes.resource_class)
	maxKeys       = 64       // of one map
	maxKey        = 255      // characters of a map's key
	maxValue      = 4 << 10  // bytes of a map's value
	maxMap        = 32 << 10 // bytes of one map
	maxTraits     = 50       // per node (Ironic)
	maxPorts      = 64       // in one CreateNode
	maxBlob       = 64 << 10 // of user data and network data, in bytes
	maxMetaData   = 16 << 10 // bytes of meta_data
	maxURL        = 2048     // characters
	maxCleanSteps = 16       // of a manual clean
)

// DefaultGroup is the group of a node or agent that names none.
const DefaultGroup = "default"

var (
	nameRE   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._~-]*$`) // RFC 3986 unreserved, as Ironic's logical names
	traitRE  = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,254}$`)
	hostRE   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$`)
	sha256RE = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// IsUUID tells whether a text is a UUID as it is written here: lower case, with hyphens.
func IsUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
	}
	return true
}

// isKey tells whether a text is a plain word, as keys of maps are.
func isKey(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9':
		case i == 0 || !strings.ContainsRune("._:/-", rune(c)):
			return false
		}
	}
	return s != ""
}

var secretWords = []string{"password", "secret", "token", "key"} // read-only

// secretKey tells whether a driver_info key holds a secret: its value is sealed and never sent back.
func secretKey(key string) bool {
	k := strings.ToLower(key)
	return !strings.HasSuffix(k, "_url") && slices.ContainsFunc(secretWords, func(w string) bool { return strings.Contains(k, w) })
}

// Name checks a name that becomes part of URLs and command lines.
func Name(field, name string) error {
	switch {
	case len(name) > MaxName:
		return refusal.Invalid(field, "it has %d characters, at most %d are allowed", len(name), MaxName)
	case !nameRE.MatchString(name):
		return refusal.Invalid(field, "%q may hold letters, digits, and . _ ~ - after the first", refusal.Clip(name))
	case IsUUID(strings.ToLower(name)):
		return refusal.Invalid(field, "%q looks like a UUID: a name must not", name)
	}
	return nil
}

// Text checks a text of people. limit is in bytes.
func Text(field, text string, limit int) error {
	if len(text) > limit {
		return refusal.Invalid(field, "it has %d bytes, at most %d are allowed", len(text), limit)
	}
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' }) {
		return refusal.Invalid(field, "it holds control characters")
	}
	return nil
}

// checkMap bounds a map of strings. Keys are plain words, so that they can be named by paths and flags.
func checkMap(field string, m map[string]string, limit int) error {
	if len(m) > maxKeys {
		return refusal.Invalid(field, "it has %d keys, at most %d are allowed", len(m), maxKeys)
	}
	total := 0
	for k, val := range m {
		if len(k) > maxKey || !isKey(k) {
			return refusal.Invalid(field, "key %q may hold letters, digits, and . _ : / - after the first", refusal.Clip(k))
		}
		if len(val) > maxValue {
			return refusal.Invalid(field+"."+k, "it has %d bytes, at most %d are allowed", len(val), maxValue)
		}
		if !utf8.ValidString(val) || strings.ContainsRune(val, 0) {
			return refusal.Invalid(field+"."+k, "it is not text")
		}
		total += len(k) + len(val)
	}
	if total > limit {
		return refusal.Invalid(field, "it has %d bytes, at most %d are allowed", total, limit)
	}
	return nil
}

// normalMAC reads a MAC in any usual spelling and answers it in lower case with colons.
func normalMAC(field, text string) (string, error) {
	hw, ok := parseMAC(text)
	if !ok {
		return "", refusal.Invalid(field, "%q is not a MAC address", refusal.Clip(text)).WithHelp("write six pairs of hex digits, like 52:54:00:12:34:56")
	}
	mac := strings.ReplaceAll(fmt.Sprintf("% x", hw), " ", ":")
	if hw[0]&1 != 0 {
		return "", refusal.Invalid(field, "%s is a group address: no machine has it", mac)
	}
	if mac == "00:00:00:00:00:00" {
		return "", refusal.Invalid(field, "the MAC address is all zeros")
	}
	return mac, nil
}

// parseMAC reads 52:54:00:12:34:56, 52-54-00-12-34-56 and 5254.0012.3456.
func parseMAC(text string) (hw []byte, ok bool) {
	var groups []string
	switch {
	case len(text) == 17 && (text[2] == ':' || text[2] == '-'):
		groups = strings.Split(text, text[2:3])
	case len(text) == 14 && text[4] == '.':
		groups = strings.Split(text, ".")
	}
	for _, g := range groups {
		if len(g)*len(groups) != 12 {
			return nil, false
		}
	}
	hw, err := hex.DecodeString(strings.Join(groups, ""))
	return hw, err == nil && len(hw) == 6
}

func checkIP(field, text string) error {
	if text == "" {
		return nil
	}
	addr, err := netip.ParseAddr(text)
	// Loopback is where machines in software live (test/lab).
	if err != nil || !addr.IsGlobalUnicast() && !addr.IsLoopback() || addr.Zone() != "" {
		return refusal.Invalid(field, "%q is not the address of a machine", refusal.Clip(text)).WithHelp("give one IPv4 or IPv6 address, like 10.1.0.17")
	}
	return nil
}

// checkURL allows what an agent may fetch: http and https, a host, no credentials.
func checkURL(field, text string) error {
	u, err := url.Parse(text)
	switch {
	case len(text) > maxURL:
		return refusal.Invalid(field, "it has %d characters, at most %d are allowed", len(text), maxURL)
	case err != nil || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return refusal.Invalid(field, "it is not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return refusal.Invalid(field, "scheme %q is not http or https", refusal.Clip(u.Scheme))
	case u.Hostname() == "":
		return refusal.Invalid(field, "it names no host")
	case u.User != nil:
		return refusal.Invalid(field, "it carries credentials: they would be stored and logged").
			WithHelp("serve the image without a password to the racks; its digest protects it")
	}
	return nil
}

func checkHostname(field, name string) error {
	if name != "" && (len(name) > 253 || !hostRE.MatchString(name)) {
		return refusal.Invalid(field, "%q is not a host name", refusal.Clip(name))
	}
	return nil
}

// checkAddress checks a BMC's address: a host with or without a port, or an http(s) URL without credentials.
func checkAddress(text string) error {
	const field = "driver_info.redfish_address"
	if strings.Contains(text, "://") {
		return checkURL(field, text)
	}
	return checkURL(field, "https://"+text)
}
