package pid1

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestModulesAreLoadedInOrder(t *testing.T) {
	dir := t.TempDir()
	order := filepath.Join(dir, "order")
	if err := os.WriteFile(order, []byte("a.ko\n\nbuiltin.ko\n../../etc/x.ko\nabsent.ko\nbroken.ko\nhv_x.ko\nz.ko\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var tried []string
	loaded, failed := loadModules(order, func(path string) error {
		name := filepath.Base(path)
		tried = append(tried, name)
		switch name {
		case "builtin.ko":
			return unix.EEXIST
		case "absent.ko":
			return unix.ENODEV
		case "hv_x.ko":
			return unix.ENOENT
		case "broken.ko":
			return errors.New("bad")
		}
		return nil
	}, slog.New(slog.DiscardHandler))
	if loaded != 2 || failed != 1 || strings.Join(tried, " ") != "a.ko builtin.ko absent.ko broken.ko hv_x.ko z.ko" {
		t.Errorf("loaded %d, failed %d, tried %v", loaded, failed, tried)
	}
	if loaded, failed := loadModules(filepath.Join(dir, "none"), nil, slog.New(slog.DiscardHandler)); loaded != 0 || failed != 0 {
		t.Error("modules out of nowhere")
	}
}

func TestMounts(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range mounts {
		if seen[m.where] || !filepath.IsAbs(m.where) {
			t.Errorf("mount %v", m)
		}
		seen[m.where] = true
	}
	for _, want := range []string{"/dev", "/proc", "/sys", "/run", "/tmp"} {
		if !seen[want] {
			t.Errorf("%s is not mounted", want)
		}
	}
}
