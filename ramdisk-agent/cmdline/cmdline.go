// Package cmdline reads the kernel command line of a ramdisk: who it is, and where its agents are.
//
//	farrier.boot=ID farrier.secret=HEX farrier.agents=URL,URL farrier.pins=HEX,HEX BOOTIF=01-52-54-00-00-00-01
package cmdline

import (
	"encoding/hex"
	"net"
	"net/url"
	"strings"

	"github.com/farrier-project/farrier/pkg/fault"
)

const (
	maxLine   = 64 << 10
	maxAgents = 16
)

// Params are what the command line says.
type Params struct {
	BootID string
	Secret string     // of the boot attempt
	Agents []string   // https://address:port of RamdiskService, in the order to try
	Pins   [][32]byte // SHA-256 of the public keys that the agents may have
	BootIf string     // MAC of the NIC that booted, aa:bb:cc:dd:ee:ff; empty: any
	IPDone bool       // farrier.network=none: the network is configured already
	Debug  bool       // farrier.debug
}

// Parse reads a command line. Words it does not know belong to others.
func Parse(line string) (Params, error) {
	var p Params
	if len(line) > maxLine {
		return p, fault.New(fault.TooLarge, "read command line", "more than %d bytes", maxLine)
	}
	for _, word := range strings.Fields(line) {
		key, value, _ := strings.Cut(word, "=")
		if err := p.set(key, value); err != nil {
			return Params{}, err
		}
	}
	switch {
	case p.BootID == "" || p.Secret == "":
		return Params{}, missing("farrier.boot and farrier.secret")
	case len(p.Agents) == 0 || len(p.Pins) == 0:
		return Params{}, missing("farrier.agents and farrier.pins")
	}
	return p, nil
}

func (p *Params) set(key, value string) error {
	switch key {
	case "farrier.boot":
		if !isHex(value, 1, 64) {
			return invalid(key, "%q is not hexadecimal", value)
		}
		p.BootID = value
	case "farrier.secret":
		if !isHex(value, 1, 256) {
			return invalid(key, "it is not hexadecimal") // not shown: it is a secret
		}
		p.Secret = value
	case "farrier.agents":
		list := strings.Split(value, ",")
		if len(list) > maxAgents {
			return invalid(key, "more than %d agents", maxAgents)
		}
		for _, a := range list {
			u, err := url.Parse(a)
			if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
				return invalid(key, "%q is not an https URL", a)
			}
			p.Agents = append(p.Agents, strings.TrimSuffix(a, "/"))
		}
	case "farrier.pins":
		list := strings.Split(value, ",")
		if len(list) > maxAgents {
			return invalid(key, "more than %d pins", maxAgents)
		}
		for _, h := range list {
			pin, err := ParsePin(h)
			if err != nil {
				return err
			}
			p.Pins = append(p.Pins, pin)
		}
	case "farrier.network":
		p.IPDone = value == "none"
	case "farrier.debug":
		p.Debug = value != "0"
	case "BOOTIF":
		text := strings.ToLower(strings.ReplaceAll(value, "-", ":"))
		if strings.Count(text, ":") == 6 { // pxelinux puts the hardware type in front
			_, text, _ = strings.Cut(text, ":")
		}
		mac, err := net.ParseMAC(text)
		if err != nil || len(mac) != 6 {
			return invalid(key, "%q is not 01- and a MAC address", value)
		}
		p.BootIf = mac.String()
	}
	return nil
}

// ParsePin reads the SHA-256 of a public key.
func ParsePin(text string) ([32]byte, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 32 {
		return [32]byte{}, invalid("farrier.pins", "%q is not a SHA-256 in hexadecimal", text)
	}
	return [32]byte(b), nil
}

func isHex(s string, least, most int) bool {
	if len(s) < least || len(s) > most {
		return false
	}
	return strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

func missing(what string) error {
	return fault.New(fault.Invalid, "read command line", "%s are needed", what).
		WithHelp("the rack agent puts them there: boot the ramdisk through it")
}

func invalid(key, format string, args ...any) error {
	return fault.New(fault.Invalid, "read command line", "%s: "+format, append([]any{key}, args...)...).
		WithDetail(&fault.FieldDetail{Field: key})
}
