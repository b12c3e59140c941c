package secret

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/farrier-project/farrier/pkg/fault"
)

// keySize is XChaCha20-Poly1305's, in bytes.
const keySize = chacha20poly1305.KeySize

// Keyring holds the sealing keys, the newest of which seals. It is safe for concurrent use.
type Keyring struct {
	mu      sync.RWMutex
	keys    map[uint32][keySize]byte
	current uint32
}

// NewKeyring makes a keyring with one fresh key, id 1.
func NewKeyring() *Keyring {
	k := &Keyring{keys: map[uint32][keySize]byte{}}
	k.Rotate()
	return k
}

// Rotate adds a fresh key, which seals from now on; older keys still open. It returns the new key's id.
func (k *Keyring) Rotate() uint32 {
	k.mu.Lock()
	defer k.mu.Unlock()
	var key [keySize]byte
	_, _ = rand.Read(key[:]) // crypto/rand.Read never fails: it ends the process instead
	k.current++
	k.keys[k.current] = key
	return k.current
}

// Seal closes plain in a box that opens only with the same additional data.
func (k *Keyring) Seal(plain []byte, aad string) (keyID uint32, box []byte, err error) {
	k.mu.RLock()
	id, key := k.current, k.keys[k.current]
	k.mu.RUnlock()
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return 0, nil, fault.Wrap("seal secret", err)
	}
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(plain)+aead.Overhead())
	_, _ = rand.Read(nonce)
	return id, aead.Seal(nonce, nonce, plain, []byte(aad)), nil
}

// Open opens a box. A missing key is fault.NotFound; a box that was changed or moved is fault.Corrupt.
func (k *Keyring) Open(keyID uint32, box []byte, aad string) ([]byte, error) {
	k.mu.RLock()
	key, ok := k.keys[keyID]
	k.mu.RUnlock()
	if !ok {
		return nil, fault.New(fault.NotFound, "open secret", "sealing key %d is not in the key file", keyID).
			WithHelp("copy the key file from a coordinator that has it, or rejoin this one")
	}
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return nil, fault.Wrap("open secret", err)
	}
	if len(box) < aead.NonceSize() {
		return nil, fault.New(fault.Corrupt, "open secret", "the box of %s is too short", aad)
	}
	plain, err := aead.Open(nil, box[:aead.NonceSize()], box[aead.NonceSize():], []byte(aad))
	if err != nil {
		return nil, fault.New(fault.Corrupt, "open secret", "the box of %s does not open with key %d", aad, keyID)
	}
	return plain, nil
}

// Derive makes 32 bytes from a label and data that only holders of the keyring can make. It uses the first key, so
// that rotation does not change what was derived before.
func (k *Keyring) Derive(label string, data []byte) [32]byte {
	k.mu.RLock()
	defer k.mu.RUnlock()
	ids := make([]uint32, 0, len(k.keys))
	for id := range k.keys {
		ids = append(ids, id)
	}
	key := k.keys[slices.Min(ids)]
	mac := hmac.New(sha256.New, key[:])
	mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(label))))
	mac.Write([]byte(label))
	mac.Write(data)
	return [32]byte(mac.Sum(nil))
}

type keyringFile struct {
	Current uint32            `json:"current"`
	Keys    map[uint32][]byte `json:"keys"`
}

// Marshal is the keyring in clear, for the key file and for a joining coordinator.
func (k *Keyring) Marshal() []byte {
	k.mu.RLock()
	defer k.mu.RUnlock()
	f := keyringFile{Current: k.current, Keys: map[uint32][]byte{}}
	for id, key := range k.keys {
		f.Keys[id] = key[:]
	}
	out, err := json.Marshal(f)
	if err != nil {
		panic("secret: a keyring always marshals: " + err.Error())
	}
	return out
}

// UnmarshalKeyring reads what Marshal wrote.
func UnmarshalKeyring(data []byte) (*Keyring, error) {
	var f keyringFile
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return nil, fault.New(fault.Corrupt, "read keyring", "not a keyring: %w", err)
	}
	k := &Keyring{keys: map[uint32][keySize]byte{}, current: f.Current}
	for id, key := range f.Keys {
		if len(key) != keySize {
			return nil, fault.New(fault.Corrupt, "read keyring", "key %d has %d bytes instead of %d", id, len(key), keySize)
		}
		k.keys[id] = [keySize]byte(key)
	}
	if _, ok := k.keys[f.Current]; !ok {
		return nil, fault.New(fault.Corrupt, "read keyring", "the current key %d is missing", f.Current)
	}
	return k, nil
}

// LoadKeyring reads a key file. A file that others may read is refused.
func LoadKeyring(path string) (*Keyring, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fault.New(fault.NotFound, "load keyring", "%w", err).
			WithHelp("the key file is made by `farrier-coordinator init` and `join`; restore it, or rejoin this coordinator")
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fault.New(fault.Denied, "load keyring", "%s has mode %04o: others may read it", path, info.Mode().Perm()).
			WithHelp("chmod 0600 %s", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Wrap("load keyring", err)
	}
	k, err := UnmarshalKeyring(data)
	return k, fault.Wrap("load keyring "+path, err)
}

// Save writes the key file with mode 0600, whole or not at all.
func (k *Keyring) Save(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fault.Wrap("save keyring", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".keyring-*") // mode 0600
	if err != nil {
		return fault.Wrap("save keyring", err)
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(k.Marshal()); err != nil {
		return fault.Wrap("save keyring", err)
	}
	if err := tmp.Sync(); err != nil {
		return fault.Wrap("save keyring", err)
	}
	if err := tmp.Close(); err != nil {
		return fault.Wrap("save keyring", err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fault.Wrap("save keyring", err)
	}
	return fault.Wrap("save keyring", syncDir(filepath.Dir(path)))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer d.Close()
	return d.Sync()
}
