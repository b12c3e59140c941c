package redfish

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/pkg/fault"
)

func TestDriverInfo(t *testing.T) {
	good := map[string]string{"redfish_address": "192.0.2.1", "redfish_username": "u", "redfish_password": "p"}
	for _, c := range []struct {
		key, value string
		field      string // "": accepted
	}{
		{"redfish_address", "https://192.0.2.1:8443/", ""},
		{"redfish_address", "[2001:db8::1]:443", ""},
		{"redfish_address", "", "redfish_address"},
		{"redfish_address", "ftp://192.0.2.1", "redfish_address"},
		{"redfish_address", "https://u:p@192.0.2.1", "redfish_address"},
		{"redfish_address", "https://192.0.2.1/redfish/v1", "redfish_address"},
		{"redfish_system_id", "/redfish/v1/Systems/1", ""},
		{"redfish_system_id", "https://evil/redfish/v1/Systems/1", "redfish_system_id"},
		{"redfish_password", "", "redfish_password"},
		{"redfish_auth_type", "basic", ""},
		{"redfish_auth_type", "digest", "redfish_auth_type"},
		{"redfish_verify_ca", "false", ""},
		{"redfish_verify_ca", "/etc/ssl/ca.pem", "redfish_verify_ca"},
		{"redfish_pin", strings.Repeat("AB:", 31) + "AB", ""},
		{"redfish_pin", "abcd", "redfish_pin"},
	} {
		t.Run(c.key+"="+c.value, func(t *testing.T) {
			info := map[string]string{c.key: c.value}
			for k, v := range good {
				if k != c.key {
					info[k] = v
				}
			}
			_, err := new(Driver).Open(bmc.Target{Node: "n", DriverInfo: info})
			if c.field == "" {
				if err != nil {
					t.Errorf("Open: %v", err)
				}
				return
			}
			var e *fault.Error
			if !errors.As(err, &e) || e.Kind != fault.Invalid || e.Help == "" {
				t.Fatalf("Open: %v, want invalid with help", err)
			}
			if d, ok := e.Detail.(*fault.FieldDetail); !ok || d.Field != "driver_info."+c.field {
				t.Errorf("the detail is %+v, want field %s", e.Detail, c.field)
			}
		})
	}
}

// TestCredentialsStayHome: a link that looks like a path and names another host gets neither token nor password.
func TestCredentialsStayHome(t *testing.T) {
	sent := 0
	w := &wire{origin: "https://192.0.2.1", base: roundTrip(func(r *http.Request) (*http.Response, error) {
		sent++
		if u, _, _ := r.BasicAuth(); u != "user" {
			t.Error("a request to the BMC has no credentials")
		}
		return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
	})}
	w.setBasic("user", "password")
	for target, ok := range map[string]bool{
		"https://192.0.2.1/redfish/v1": true, "http://192.0.2.1/redfish/v1": false, "https://192.0.2.1@evil.example/": false,
		"https://192.0.2.1:444/": false, "https://x@192.0.2.1/": false,
	} {
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.RoundTrip(&http.Request{Method: "GET", URL: u, Header: http.Header{}})
		if ok != (err == nil) || !ok && !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v", target, err)
		}
	}
	if sent != 1 {
		t.Errorf("%d requests were sent, want 1", sent)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRetryAfter(t *testing.T) {
	for text, want := range map[string]time.Duration{"": time.Second, "0": 0, "7": 7 * time.Second, "soon": time.Second, "-1": time.Second} {
		if got, ok := retryAfter(text); got != want || !ok {
			t.Errorf("retryAfter(%q) = %v, %v", text, got, ok)
		}
	}
	if _, ok := retryAfter("3600"); ok {
		t.Error("an hour is waited for")
	}
}

func TestReplyIsBounded(t *testing.T) {
	read := func(size, bound int64) (int64, error) {
		return io.Copy(io.Discard, &capped{ReadCloser: io.NopCloser(io.LimitReader(zeros{}, size)), left: bound})
	}
	if n, err := read(100, 100); n != 100 || err != nil {
		t.Errorf("at the bound: %d, %v", n, err)
	}
	if _, err := read(101, 100); !fault.Is(err, fault.TooLarge) {
		t.Errorf("over the bound: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
