package message

import (
	"errors"
	"strings"
	"testing"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
)

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"web-1": true, "a": true, "A.b_c~d": true, "": false, "-x": false, "a b": false, "a/b": false, "ü": false,
		"11111111-2222-3333-4444-555555555555": false, strings.Repeat("a", 255): true, strings.Repeat("a", 256): false,
	} {
		if err := Name("f", name); (err == nil) != ok {
			t.Errorf("%.20q: %v", name, err)
		}
	}
}

func TestMACs(t *testing.T) {
	for in, want := range map[string]string{
		"52:54:00:AB:cd:01": "52:54:00:ab:cd:01", "52-54-00-ab-cd-01": "52:54:00:ab:cd:01", "5254.00ab.cd01": "52:54:00:ab:cd:01",
		"52:54:00:ab:cd": "", "52:54:00:ab:cd:zz": "", "01:00:5e:00:00:01": "", "ff:ff:ff:ff:ff:ff": "", "00:00:00:00:00:00": "", "": "",
		"02:00:5e:10:00:00:00:01": "",
		"52:54:00-ab:cd:01":       "", "5254.00ab-cd01": "", "525:4:00:ab:cd:01": "", "525400abcd01": "", "52.54.00.ab.cd.01": "", "525.40.0abcd01": "",
	} {
		got, err := normalMAC("f", in)
		if (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func TestURLs(t *testing.T) {
	for in, ok := range map[string]bool{
		"http://h/i.raw": true, "https://h:8443/i?x=1": true, "file:///etc/passwd": false, "ftp://h/i": false, "http:///i": false,
		"http://u:p@h/i": false, "http://h/a b": false, "http://h/\n": false, "": false, "http://h/" + strings.Repeat("a", 2048): false,
	} {
		if err := checkURL("f", in); (err == nil) != ok {
			t.Errorf("%.40q: %v", in, err)
		}
	}
}

func TestImages(t *testing.T) {
	sum := strings.Repeat("aB", 32)
	for _, tt := range []struct {
		img   *farrierv1.Image
		field string
	}{
		{nil, "deploy.image"},
		{&farrierv1.Image{Sha256: sum, Format: "raw"}, "deploy.image.url"},
		{&farrierv1.Image{Url: "http://h/i", Sha256: "ab", Format: "raw"}, "deploy.image.sha256"},
		{&farrierv1.Image{Url: "http://h/i", Sha256: sum}, "deploy.image.format"},
		{&farrierv1.Image{Url: "http://h/i", Sha256: sum, Format: "qcow2"}, "deploy.image.format"},
	} {
		_, _, _, err := checkImage(tt.img)
		wantField(t, err, tt.field)
	}
	if _, got, _, err := checkImage(&farrierv1.Image{Url: "http://h/i", Sha256: sum, Format: "raw.zst"}); err != nil || got != strings.ToLower(sum) {
		t.Errorf("a good image: %q, %v", got, err)
	}
}

func TestHints(t *testing.T) {
	for _, tt := range []struct {
		key, value string
		ok         bool
	}{
		{"model", "QEMU", true}, {"serial", "", false}, {"size", "10", true}, {"size", "ten", false}, {"min_size_gib", "0", false},
		{"rotational", "true", true}, {"rotational", "yes", false}, {"vendor", "x", true}, {"id", "serial-S1", true}, {"by_path", "pci0000:00", true}, {"colour", "red", false},
	} {
		if err := checkHints(map[string]string{tt.key: tt.value}); (err == nil) != tt.ok {
			t.Errorf("%s=%s: %v", tt.key, tt.value, err)
		}
	}
}

func TestNetworkData(t *testing.T) {
	for in, ok := range map[string]bool{
		"": true, `{"links":[]}`: true, `[]`: false, `{`: false, `null x`: false, strings.Repeat("[", 100) + strings.Repeat("]", 100): false,
		`{"a":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["}`: true,
	} {
		if err := checkNetworkData([]byte(in)); (err == nil) != ok {
			t.Errorf("%.40q: %v", in, err)
		}
	}
	if err := checkNetworkData(make([]byte, maxBlob+1)); !fault.Is(err, fault.TooLarge) {
		t.Errorf("too large: %v", err)
	}
}

func TestSecretKeys(t *testing.T) {
	for key, want := range map[string]bool{
		"redfish_password": true, "API_TOKEN": true, "ssh_key": true, "client_secret": true, "redfish_address": false,
		"redfish_username": false, "key_url": false, "password_url": false,
	} {
		if got := secretKey(key); got != want {
			t.Errorf("%s: %v", key, got)
		}
	}
}

func TestMaps(t *testing.T) {
	many := map[string]string{}
	for i := range maxKeys + 1 {
		many[strings.Repeat("k", i+1)] = ""
	}
	for what, m := range map[string]map[string]string{
		"too many keys": many, "a long value": {"k": strings.Repeat("v", maxValue+1)}, "a bad key": {"a b": ""}, "no text": {"k": "\xff"},
		"a zero byte": {"k": "\x00"},
	} {
		if err := checkMap("f", m, maxMap); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := checkMap("f", map[string]string{"a": "bcd"}, 3); !fault.Is(err, fault.Invalid) {
		t.Errorf("over the whole limit: %v", err)
	}
}

func wantField(t *testing.T, err error, field string) {
	t.Helper()
	var e *fault.Error
	if !errors.As(err, &e) || e.Kind != fault.Invalid {
		t.Errorf("%s: got %v, want an invalid fault", field, err)
		return
	}
	if d, ok := e.Detail.(*fault.FieldDetail); !ok || d.Field != field {
		t.Errorf("%s: detail %+v", field, e.Detail)
	}
}
