package identity

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/farrier-project/farrier/pkg/fault"
)

// maxRevoked bounds the keys that a store remembers, and what a stranger could make it write.
const maxRevoked = 4096

// Revoke remembers keys, by the hash that Pin makes, that the cluster does not believe any more: no certificate of one passes in
// TLS from now on, however long it would be good, and also when the store is opened again. What is revoked stays so. An error
// means that it is not on the disk; it counts all the same, and is written with the next call.
func (s *Store) Revoke(keys ...[32]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.written && !slices.ContainsFunc(keys, func(k [32]byte) bool { return !s.revoked[k] }) { // as with most answers
		return nil
	}
	next := map[[32]byte]bool{}
	maps.Copy(next, s.revoked)
	for _, k := range keys {
		if len(next) < maxRevoked {
			next[k] = true
		}
	}
	if s.written && len(next) == len(s.revoked) {
		return nil
	}
	s.revoked = next
	err := s.writeRevoked()
	s.written = err == nil
	return fault.Wrap("remember revoked keys", err)
}

// Revoked tells whether a key is one that Revoke was told of.
func (s *Store) Revoked(key [32]byte) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.revoked[key]
}

func (s *Store) writeRevoked() error {
	var lines []string
	for k := range s.revoked {
		lines = append(lines, hex.EncodeToString(k[:]))
	}
	slices.Sort(lines)
	return writeFile(filepath.Join(s.dir, revokedFile), func(f *os.File) error {
		_, err := f.WriteString(strings.Join(lines, "\n") + "\n")
		return err
	})
}

func (s *Store) readRevoked() error {
	path := filepath.Join(s.dir, revokedFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.Wrap("read revoked keys", err)
	}
	revoked := map[[32]byte]bool{}
	for line := range strings.Lines(string(data)) {
		var k [32]byte
		if n, err := hex.Decode(k[:], []byte(strings.TrimSpace(line))); err != nil || n != len(k) {
			return fault.New(fault.Corrupt, "read revoked keys", "%s: %q is not a key", path, line).
				WithHelp("remove the line: the coordinators tell which keys are revoked when they are reached next")
		}
		revoked[k] = true
	}
	s.revoked, s.written = revoked, true
	return nil
}
