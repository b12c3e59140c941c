package boltfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/replica/boltfile"
	"github.com/farrier-project/farrier/pkg/fault"
)

const last = 300

// whole makes a file of entries up to last, and answers its path and bytes.
func whole(t *testing.T) (string, []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "raft.db")
	f, err := boltfile.Create(path)
	must(t, err)
	for i := uint64(1); i <= last; i += 50 {
		var logs []*raft.Log
		for k := i; k < i+50; k++ {
			logs = append(logs, &raft.Log{Index: k, Term: 2, Data: fmt.Appendf(nil, "entry %d %s", k, strings.Repeat("x", 50))})
		}
		must(t, f.StoreLogs(logs))
	}
	must(t, f.Close())
	must(t, boltfile.Check(path))
	raw, err := os.ReadFile(path)
	must(t, err)
	return path, raw
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpen(t *testing.T) {
	path, _ := whole(t)
	must(t, os.Chmod(path, 0o644))
	f, err := boltfile.Open(path)
	must(t, err)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", st.Mode(), err)
	}
	if _, err := boltfile.Open(path); !fault.Is(err, fault.Busy) {
		t.Errorf("opened twice: %v", err)
	}
	var l raft.Log
	must(t, f.GetLog(last, &l))
	if l.Index != last || !bytes.HasPrefix(l.Data, []byte("entry 300 ")) {
		t.Errorf("read %+v", l)
	}
	f.ReturnPages()
	must(t, f.GetLog(1, &l))
	must(t, f.Close())
	if _, err := boltfile.Open(filepath.Join(t.TempDir(), "none")); !fault.Is(err, fault.Corrupt) {
		t.Errorf("no file: %v", err)
	}
}

// TestDamageWasBelieved: bbolt checks its meta pages only, and takes the older of them for the newest state when the other is
// damaged. Of the rest of a page only its head and its keys can be checked here.
func TestDamageWasBelieved(t *testing.T) {
	path, raw := whole(t)
	page := os.Getpagesize()
	cases := map[string][]byte{"empty": nil, "half a page": raw[:page/2], "one page": raw[:page]}
	flip := func(name string, at int) {
		bad := bytes.Clone(raw)
		bad[at] ^= 4
		cases[fmt.Sprintf("%s, byte %d", name, at)] = bad
	}
	for i := range 64 {
		flip("older or newer meta page", 16+i)
		flip("older or newer meta page", page+16+i)
	}
	for i := 2; (i+1)*page <= len(raw); i++ {
		if at := i * page; bytes.Equal(raw[at:at+8], []byte{byte(i), 0, 0, 0, 0, 0, 0, 0}) && raw[at+8] == 0x02 {
			if used(t, path, raw, at) {
				flip("leaf's id", at)
				flip("leaf's flags", at+8)
				flip("leaf's first element", at+16+4)
			}
		}
	}
	if len(cases) < 140 {
		t.Fatalf("%d cases: no leaf was found", len(cases))
	}
	for name, bad := range cases {
		must(t, os.WriteFile(path, bad, 0o600))
		f, err := boltfile.Open(path)
		var e *fault.Error
		if !errors.As(err, &e) || e.Kind != fault.Corrupt || !strings.Contains(err.Error(), path) || e.Help == "" {
			t.Errorf("%s: got %v, %v", name, f, err)
		}
	}
}

// used tells whether the page at the offset is one of the tree: some are free, and hold what they held before.
func used(t *testing.T, path string, raw []byte, at int) bool {
	t.Helper()
	bad := bytes.Clone(raw)
	clear(bad[at : at+16])
	must(t, os.WriteFile(path, bad, 0o600))
	return boltfile.Check(path) != nil
}
