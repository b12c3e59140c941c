package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/farrier-project/farrier/coordinator/apply"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/replica/archive"
	"github.com/farrier-project/farrier/pkg/fault"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// some is a state of more than one chunk.
func some(t *testing.T) *apply.Applier {
	t.Helper()
	s := apply.New()
	h := command.Header{Cluster: "c", Level: 1, Actor: "operator test"}
	bodies := []command.Body{command.InitCluster{ClusterID: "c", Settings: command.DefaultSettings()}}
	for i := range 40 {
		bodies = append(bodies, command.PutMember{Member: command.Member{ID: fmt.Sprint(i), APIAddress: strings.Repeat("a", 4000), Level: 1}})
	}
	for i, b := range bodies {
		if res := s.Apply(uint64(i+1), command.Command{Header: h, Body: b}); res.Err != nil {
			t.Fatal(res.Err)
		}
	}
	return s
}

func TestWriteAndRead(t *testing.T) {
	s := some(t)
	at := time.Unix(1790000000, 0)
	var saved, copied, image bytes.Buffer
	a, err := archive.Write(t.Context(), &saved, archive.Image{View: s.View(), Applied: 77}, at)
	must(t, err)
	must(t, archive.Image{View: s.View(), Applied: 77}.Write(&image))
	b, got, err := archive.Read(t.Context(), bytes.NewReader(saved.Bytes()), int64(saved.Len()), &copied)
	must(t, err)
	if a != b || b.Cluster != "c" || b.Index != 77 || !b.At.Equal(at) || got.Hash() != s.Hash() {
		t.Errorf("wrote %+v, read %+v", a, b)
	}
	if !bytes.Equal(copied.Bytes(), image.Bytes()) {
		t.Errorf("%d bytes are copied, the image has %d", copied.Len(), image.Len())
	}
	if _, applied, err := archive.ReadImage(&copied); err != nil || applied != 77 {
		t.Errorf("the copied image is of %d, %v", applied, err)
	}
	if _, _, err := archive.Read(t.Context(), bytes.NewReader(saved.Bytes()), 100, io.Discard); !fault.Is(err, fault.TooLarge) {
		t.Errorf("over the bound: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := archive.Write(ended, io.Discard, archive.Image{View: s.View(), Applied: 77}, at); !errors.Is(err, context.Canceled) {
		t.Errorf("after the context ended: %v", err)
	}
}

// TestDamagedArchive: whatever byte is changed, and wherever it is cut, nothing else is read.
func TestDamagedArchive(t *testing.T) {
	s := apply.New()
	s.Apply(1, command.Command{Header: command.Header{Cluster: "c", Level: 1}, Body: command.InitCluster{ClusterID: "c", Settings: command.DefaultSettings()}})
	var saved bytes.Buffer
	_, err := archive.Write(t.Context(), &saved, archive.Image{View: s.View(), Applied: 1}, time.Unix(1790000000, 0))
	must(t, err)
	for at := range saved.Len() {
		bad := bytes.Clone(saved.Bytes())
		bad[at] ^= 4
		for _, in := range [][]byte{bad, saved.Bytes()[:at]} {
			if _, _, err := archive.Read(t.Context(), bytes.NewReader(in), 1<<20, io.Discard); !fault.Is(err, fault.Corrupt) && !fault.Is(err, fault.TooLarge) {
				t.Fatalf("byte %d of %d changed or missing: %v", at, saved.Len(), err)
			}
		}
	}
}

func TestSpool(t *testing.T) {
	for name, dir := range map[string]string{"on disk": t.TempDir(), "in memory": ""} {
		s, err := archive.NewSpool(dir)
		must(t, err)
		for _, p := range []string{"one", "two"} {
			_, err := s.Write([]byte(p))
			must(t, err)
		}
		r, err := s.Rewind()
		must(t, err)
		if got, err := io.ReadAll(r); err != nil || string(got) != "onetwo" || s.Failed() != nil {
			t.Errorf("%s: read %q, %v, %v", name, got, err, s.Failed())
		}
		if dir != "" {
			left, err := os.ReadDir(dir)
			must(t, err)
			if len(left) != 0 {
				t.Errorf("%s: %v would stay behind a process that ends", name, left)
			}
		}
		s.Close()
	}
	if _, err := archive.NewSpool(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a spool in no directory")
	}
}
