package secret

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/farrier-project/farrier/pkg/fault"
)

func TestValueNeverPrints(t *testing.T) {
	const canary = "canary-7f3a"
	v := NewValue(canary)
	j, err := json.Marshal(map[string]any{"password": v, "in": struct{ P Value }{v}})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "password", v)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "password", v)
	out := fmt.Sprintf("%v %+v %#v %s %q", v, v, v, v, v) + fmt.Sprintf("%v %+v %#v", &v, struct{ P Value }{v}, []Value{v}) + string(j) + log.String()
	if strings.Contains(out, canary) {
		t.Errorf("the secret was printed: %s", out)
	}
	if v.Reveal() != canary {
		t.Error("Reveal lost the secret")
	}
}

func TestSealedBoxOpensOnlyWhereItBelongs(t *testing.T) {
	k := NewKeyring()
	id, box, err := k.Seal([]byte("hunter2"), "node/a/password")
	if err != nil {
		t.Fatal(err)
	}
	k.Rotate()
	if plain, err := k.Open(id, box, "node/a/password"); err != nil || string(plain) != "hunter2" {
		t.Fatalf("Open after rotation = %q, %v", plain, err)
	}
	if _, err := k.Open(id, box, "node/b/password"); !fault.Is(err, fault.Corrupt) {
		t.Errorf("a moved box: %v", err)
	}
	if _, err := k.Open(id, append(box[:len(box)-1:len(box)-1], box[len(box)-1]^1), "node/a/password"); !fault.Is(err, fault.Corrupt) {
		t.Errorf("a changed box: %v", err)
	}
	if _, err := k.Open(99, box, "node/a/password"); !fault.Is(err, fault.NotFound) {
		t.Errorf("an unknown key: %v", err)
	}
}

func TestKeyFileIsPrivateAndComplete(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "keyring")
	k := NewKeyring()
	before := k.Derive("boot", []byte("x"))
	id, box, _ := k.Seal([]byte("s"), "a")
	k.Rotate()
	if err := k.Save(path); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %04o", info.Mode().Perm())
	}
	again, err := LoadKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := again.Open(id, box, "a"); err != nil || string(plain) != "s" {
		t.Errorf("Open = %q, %v", plain, err)
	}
	if again.Derive("boot", []byte("x")) != before {
		t.Error("a rotation and a restart changed what Derive gives")
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKeyring(path); !fault.Is(err, fault.Denied) {
		t.Errorf("a key file that others may read was loaded: %v", err)
	}
}
