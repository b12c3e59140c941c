package redfish

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/stmcginnis/gofish/schemas"

	"github.com/farrier-project/farrier/pkg/fault"
)

// classify gives an error of gofish, net/http or ours its kind, once.
func classify(op string, err error) error {
	if err == nil {
		return nil
	}
	var own *fault.Error
	if errors.As(err, &own) {
		return fault.Wrap(op, err)
	}
	if status := statusOf(err); status != 0 {
		return classifyStatus(op, status, err)
	}
	var (
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		badCert  x509.CertificateInvalidError
		verify   *tls.CertificateVerificationError
		netErr   net.Error
		syntax   *json.SyntaxError
		typeErr  *json.UnmarshalTypeError
	)
	switch {
	case errors.Is(err, errPin), errors.As(err, &unknown), errors.As(err, &hostname), errors.As(err, &badCert), errors.As(err, &verify):
		return fault.New(fault.Unauthenticated, op, "the BMC's certificate is not trusted: %w", err).
			WithHelp("set redfish_pin to its key's SHA-256, or redfish_verify_ca to its CA in PEM")
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return fault.New(fault.Timeout, op, "the BMC did not answer in time: %w", err).
			WithHelp("check that redfish_address is reachable from this agent")
	case errors.Is(err, context.Canceled):
		return fault.New(fault.Aborted, op, "%w", err)
	case errors.As(err, &syntax), errors.As(err, &typeErr), errors.Is(err, io.ErrUnexpectedEOF):
		return fault.New(fault.Corrupt, op, "the BMC's answer is not what Redfish says: %w", err).
			WithHelp("check that redfish_address is a Redfish service, and its firmware's release notes")
	}
	return fault.New(fault.Unavailable, op, "the BMC cannot be reached: %w", err).
		WithHelp("check redfish_address, and that the BMC is up and reachable from this agent")
}

func classifyStatus(op string, status int, err error) error {
	text := brief(err)
	switch status {
	case http.StatusUnauthorized:
		return fault.New(fault.Unauthenticated, op, "the BMC refuses the user name or password (401)").
			WithHelp("set redfish_username and redfish_password")
	case http.StatusForbidden:
		return fault.New(fault.Denied, op, "the BMC's user may not do this (403): %s", text).
			WithHelp("give redfish_username the role Operator or Administrator")
	case http.StatusNotFound:
		return fault.New(fault.NotFound, op, "the BMC has no such resource (404): %s", text).WithHelp("check redfish_system_id")
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return fault.New(fault.Unsupported, op, "the BMC does not accept this (%d): %s", status, text)
	case http.StatusConflict, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return fault.New(fault.Busy, op, "the BMC is busy (%d): %s", status, text)
	}
	return fault.New(fault.Unavailable, op, "the BMC failed (%d): %s", status, text)
}

func statusOf(err error) int {
	var e *schemas.Error
	if errors.As(err, &e) {
		return e.HTTPReturnedStatusCode
	}
	return 0
}

// brief is the message of a Redfish error in at most 200 bytes: replies can be pages of HTML.
func brief(err error) string {
	var e *schemas.Error
	if !errors.As(err, &e) {
		return ""
	}
	text := e.Message
	for _, i := range e.ExtendedInfos {
		if i.Message != "" {
			text = i.Message
			break
		}
	}
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 200 {
		text = text[:200] + "..."
	}
	if text == "" {
		text = "no reason given"
	}
	return text
}
