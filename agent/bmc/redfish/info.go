package redfish

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/pkg/fault"
)

type authType uint8

const (
	authAuto authType = iota
	authSession
	authBasic
)

// info is a node's driver_info, checked.
type info struct {
	endpoint           string // scheme://host[:port]
	username, password string
	systemID           string
	auth               authType
	tls                *tls.Config
}

func parseInfo(m map[string]string) (*info, error) {
	in := &info{username: m["redfish_username"], password: m["redfish_password"], systemID: m["redfish_system_id"]}
	address := m["redfish_address"]
	if address == "" {
		return nil, invalid("redfish_address", "it is missing", "set it to the BMC's URL: https://192.0.2.10")
	}
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, invalid("redfish_address", "it is not an http or https URL", "set it to the BMC's URL: https://192.0.2.10")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Path != "" && u.Path != "/") {
		return nil, invalid("redfish_address", "it has more than a scheme, a host and a port",
			"give credentials as redfish_username and redfish_password, the system's path as redfish_system_id")
	}
	in.endpoint = u.Scheme + "://" + u.Host
	if in.systemID != "" && !strings.HasPrefix(in.systemID, "/redfish/v1/") {
		return nil, invalid("redfish_system_id", "it does not start with /redfish/v1/", "for example /redfish/v1/Systems/1")
	}
	if (in.username == "") != (in.password == "") {
		return nil, invalid("redfish_password", "a user name and a password come together", "set both redfish_username and redfish_password")
	}
	switch m["redfish_auth_type"] {
	case "", "auto":
	case "session":
		in.auth = authSession
	case "basic":
		in.auth = authBasic
	default:
		return nil, invalid("redfish_auth_type", "it is unknown", `use "auto", "session" or "basic"`)
	}
	if in.tls, err = parseTrust(m["redfish_verify_ca"], m["redfish_pin"]); err != nil {
		return nil, err
	}
	return in, nil
}

// parseTrust decides how the BMC's certificate is judged: by pin, by CA, or not at all because the operator said so.
func parseTrust(verify, pin string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if pin != "" {
		want, err := hex.DecodeString(strings.ReplaceAll(pin, ":", ""))
		if err != nil || len(want) != sha256.Size {
			return nil, invalid("redfish_pin", "it is not a SHA-256 in hex", "64 hex digits: the SHA-256 of the certificate's SubjectPublicKeyInfo")
		}
		cfg.InsecureSkipVerify = true // the pin below takes the place of names and dates
		cfg.VerifyConnection = func(cs tls.ConnectionState) error { return checkPin(cs, want) }
		return cfg, nil
	}
	switch strings.ToLower(strings.TrimSpace(verify)) {
	case "", "true", "yes", "1":
	case "false", "no", "0":
		cfg.InsecureSkipVerify = true // the operator's choice, per node
	default:
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(verify)) {
			return nil, invalid("redfish_verify_ca", `it is neither "true", "false" nor PEM certificates`,
				"paste the CA's certificate, or use redfish_pin; files are not opened by name")
		}
		cfg.RootCAs = pool
	}
	return cfg, nil
}

var errPin = errors.New("the BMC's key is not the pinned one")

func checkPin(cs tls.ConnectionState, want []byte) error {
	if len(cs.PeerCertificates) == 0 {
		return errPin
	}
	got := sha256.Sum256(cs.PeerCertificates[0].RawSubjectPublicKeyInfo)
	if string(got[:]) != string(want) {
		return fmt.Errorf("%w: it is %x", errPin, got)
	}
	return nil
}

func invalid(field, what, help string) error {
	return fault.New(fault.Invalid, "read driver_info", "%s: %s", field, what).
		WithHelp("%s", help).WithDetail(&fault.FieldDetail{Field: "driver_info." + field})
}

var _ bmc.Factory = (*Driver)(nil)
