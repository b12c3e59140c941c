package cli

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/farrier-project/farrier/cmd/farrier/outcome"
)

// TestABrokenBackupReplacedTheLastGoodOne: what is written takes the earlier file's place once it is whole.
func TestABrokenBackupReplacedTheLastGoodOne(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	good := func(w io.Writer) error { _, err := io.WriteString(w, "good"); return err }
	if err := writeWhole(path, good); err != nil {
		t.Fatal(err)
	}
	cut := errors.New("the stream was cut")
	err := writeWhole(path, func(w io.Writer) error { return errors.Join(good(w), cut) })
	if !errors.Is(err, cut) {
		t.Errorf("a cut stream: %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "good" {
		t.Errorf("the earlier file is %q, %v", data, err)
	}
	link := filepath.Join(dir, "latest")
	if err := os.Symlink("state", link); err != nil {
		t.Fatal(err)
	}
	if err := writeWhole(link, func(w io.Writer) error { _, err := io.WriteString(w, "new"); return err }); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "new" {
		t.Errorf("through a link: %q, %v", data, err)
	}
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeWhole(sub, good); outcome.ExitCode(err) != outcome.ExitUsage {
		t.Errorf("a directory as target: %v", err)
	}
	if err := writeWhole(filepath.Join(dir, "none", "state"), good); outcome.ExitCode(err) != outcome.ExitUsage {
		t.Errorf("a directory that is not there: %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 3 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}
