package rpc

import (
	"encoding/json"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/hint"
)

// Bounds of what a request may carry.
const (
	maxName        = 255       // characters (Ironic: nodes.name)
	maxText        = 4096      // of descriptions and reasons
	maxClass       = 80        // of resource classes (Ironic: nodes.resource_class)
	maxKeys        = 64        // of one map
	maxKey         = 255       // characters of a map's key
	maxValue       = 4 << 10   // bytes of a map's value
	maxMap         = 32 << 10  // bytes of one map
	maxTraits      = 50        // per node (Ironic)
	maxPorts       = 64        // in one CreateNode
	maxBlob        = 64 << 10  // of user data and network data, in bytes
	maxMetaData    = 16 << 10  // bytes of meta_data
	maxURL         = 2048      // characters
	maxCleanSteps  = 16        // of a manual clean
	defaultGroup   = "default" // of a node or agent that names none
	maxPageSize    = 1000
	defaultPage    = 100
	maxBulkNodes   = 1000
	maxWatchedName = 1000 // nodes of one Watch
)

var (
	nameRE   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._~-]*$`) // RFC 3986 unreserved, as Ironic's logical names
	traitRE  = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,254}$`)
	hostRE   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$`)
	sha256RE = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// isUUID tells whether a text is a UUID as it is written here: lower case, with hyphens.
func isUUID(s string) bool {
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

// checkName checks a name that becomes part of URLs and command lines.
func checkName(field, name string) error {
	switch {
	case len(name) > maxName:
		return refusal.Invalid(field, "it has %d characters, at most %d are allowed", len(name), maxName)
	case !nameRE.MatchString(name):
		return refusal.Invalid(field, "%q may hold letters, digits, and . _ ~ - after the first", refusal.Clip(name))
	case isUUID(strings.ToLower(name)):
		return refusal.Invalid(field, "%q looks like a UUID: a name must not", name)
	}
	return nil
}

func checkText(field, text string, limit int) error {
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
	hw, err := net.ParseMAC(text)
	if err != nil || len(hw) != 6 {
		return "", refusal.Invalid(field, "%q is not a MAC address", refusal.Clip(text)).WithHelp("write six pairs of hex digits, like 52:54:00:12:34:56")
	}
	if hw[0]&1 != 0 {
		return "", refusal.Invalid(field, "%s is a group address: no machine has it", hw)
	}
	if hw.String() == "00:00:00:00:00:00" {
		return "", refusal.Invalid(field, "the MAC address is all zeros")
	}
	return hw.String(), nil
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

// checkImage checks an image and answers it with the digest in lower case.
func checkImage(img *farrierv1.Image) (url, sha, format string, err error) {
	if img == nil {
		return "", "", "", refusal.Invalid("deploy.image", "say which image to write: url, sha256 and format")
	}
	if err := checkURL("deploy.image.url", img.GetUrl()); err != nil {
		return "", "", "", err
	}
	sha = strings.ToLower(img.GetSha256())
	if !sha256RE.MatchString(sha) {
		return "", "", "", refusal.Invalid("deploy.image.sha256", "%q is not 64 hex digits", refusal.Clip(img.GetSha256())).
			WithHelp("give the SHA-256 of the file at the URL: sha256sum FILE")
	}
	switch img.GetFormat() {
	case "raw", "raw.gz", "raw.zst":
	case "":
		return "", "", "", refusal.Invalid("deploy.image.format", "say raw, raw.gz or raw.zst: formats are not guessed")
	default:
		return "", "", "", refusal.Invalid("deploy.image.format", "%q is not raw, raw.gz or raw.zst", refusal.Clip(img.GetFormat())).
			WithHelp("convert other formats first, for instance with qemu-img convert -O raw")
	}
	return img.GetUrl(), sha, img.GetFormat(), nil
}

// checkHints checks the root device hints.
func checkHints(hints map[string]string) error {
	for k, val := range hints {
		if err := hint.Check("deploy.root_device_hints.", k, val); err != nil {
			return err
		}
	}
	return nil
}

func checkHostname(field, name string) error {
	if name != "" && (len(name) > 253 || !hostRE.MatchString(name)) {
		return refusal.Invalid(field, "%q is not a host name", refusal.Clip(name))
	}
	return nil
}

func checkBlob(field string, data []byte) error {
	if len(data) > maxBlob {
		return &fault.Error{Kind: fault.TooLarge, Op: field, Err: errSize(len(data)), Detail: &fault.FieldDetail{Field: field},
			Help: "put larger data behind a URL that the machine reads itself"}
	}
	return nil
}

type errSize int

func (n errSize) Error() string {
	return "it has " + strconv.Itoa(int(n)) + " bytes, at most " + strconv.Itoa(maxBlob) + " are allowed"
}

// checkNetworkData checks that network data is one JSON object of bounded depth.
func checkNetworkData(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if err := checkBlob("deploy.network_data", data); err != nil {
		return err
	}
	if depth(data) > 32 {
		return refusal.Invalid("deploy.network_data", "it is nested deeper than 32 levels")
	}
	var o map[string]json.RawMessage
	if err := json.Unmarshal(data, &o); err != nil {
		return refusal.Invalid("deploy.network_data", "it is not a JSON object: %w", err)
	}
	return nil
}

// depth counts the nesting of JSON without parsing it.
func depth(data []byte) (deepest int) {
	level, quoted, escaped := 0, false, false
	for _, b := range data {
		switch {
		case escaped:
			escaped = false
		case quoted:
			escaped = b == '\\'
			quoted = b != '"'
		case b == '"':
			quoted = true
		case b == '{' || b == '[':
			level++
			deepest = max(deepest, level)
		case b == '}' || b == ']':
			level--
		}
	}
	return deepest
}

// checkCleanSteps checks the steps of a manual clean; which exist is the flow's to say.
func checkCleanSteps(steps []*farrierv1.CleanStep) ([]command.CleanStep, error) {
	if len(steps) > maxCleanSteps {
		return nil, refusal.Invalid("clean_steps", "at most %d steps are allowed", maxCleanSteps)
	}
	out := make([]command.CleanStep, 0, len(steps))
	for i, s := range steps {
		field := "clean_steps[" + strconv.Itoa(i) + "]"
		if s.GetInterface() == "" || s.GetStep() == "" {
			return nil, refusal.Invalid(field, "say interface and step")
		}
		if err := checkMap(field+".args", s.GetArgs(), maxMap); err != nil {
			return nil, err
		}
		out = append(out, command.CleanStep{Interface: s.GetInterface(), Step: s.GetStep(), Args: s.GetArgs()})
	}
	return out, nil
}

// checkAddress checks a BMC's address: a host with or without a port, or an http(s) URL without credentials.
func checkAddress(text string) error {
	const field = "driver_info.redfish_address"
	if strings.Contains(text, "://") {
		return checkURL(field, text)
	}
	return checkURL(field, "https://"+text)
}
