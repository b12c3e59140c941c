package snapshot

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestDirectFile(t *testing.T) {
	for name, shift := range map[string]int{"aligned": 0, "as another disk wants it": 1} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{0, 1, directAlign, directAlign + 1, directBuffer - 1, directBuffer, 3*directBuffer + 77} {
				path := filepath.Join(t.TempDir(), "f")
				d, err := createDirect(path)
				if err != nil {
					t.Fatal(err)
				}
				d.buf = d.buf[shift : len(d.buf)-directAlign+shift]
				want := make([]byte, size)
				for i := range want {
					want[i] = byte(i * 7 / 5)
				}
				for rest := want; len(rest) > 0; {
					n := min(len(rest), 100_001)
					if wrote, err := d.Write(rest[:n]); err != nil || wrote != n {
						t.Fatal(wrote, err)
					}
					rest = rest[n:]
				}
				if err := errors.Join(d.finish(), d.Close()); err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d bytes: %d were read back, %v", size, len(got), err)
				}
			}
		})
	}
	path := filepath.Join(t.TempDir(), "there")
	if err := os.WriteFile(path, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := createDirect(path); !errors.Is(err, os.ErrExist) {
		t.Errorf("a file that was there: %v, %v", d, err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "kept" {
		t.Errorf("it has %q, %v", got, err)
	}
}
