package site

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Binaries is a directory with the four programs for a test package below test/: the one that the make target built and
// named in FARRIER_BIN, or a new one. done removes what was made.
func Binaries() (dir string, done func(), err error) {
	if dir = os.Getenv("FARRIER_BIN"); dir != "" {
		return dir, func() {}, nil
	}
	if dir, err = os.MkdirTemp("", "farrier-bin-"); err != nil {
		return "", nil, err
	}
	done = func() { os.RemoveAll(dir) }
	for name, pkg := range map[string]string{"farrier": "cmd/farrier", "farrier-coordinator": "coordinator", "farrier-agent": "agent", "farrier-ramdisk": "ramdisk-agent"} {
		cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, name), "./"+pkg)
		cmd.Dir = filepath.Join("..", "..")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			done()
			return "", nil, fmt.Errorf("build %s: %w: %s", name, err, out)
		}
	}
	return dir, done, nil
}
