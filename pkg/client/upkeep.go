package client

import (
	"bytes"
	"context"
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

const (
	// headerMembers is on a coordinator's answers to operators: the members' API addresses, separated by commas.
	headerMembers = "Farrier-Members"
	// headerRevoked is there as well: the keys, as the hex of their SHA-256, of coordinators that are believed no more.
	headerRevoked = "Farrier-Revoked"

	renewLock  = ".renew" // in the configuration directory: held by the process that renews
	renewEvery = time.Minute
	renewWait  = 10 * time.Second
)

// certificate is the upkeep of an operator's certificate. Like the other parts, a client renews it at two thirds of its
// life; it does so after a call that succeeded, when coordinators are known to answer.
type certificate struct {
	store *identity.Store
	join  farrierv1connect.JoinServiceClient

	mu   sync.Mutex // guards the fields below, and is held while it is renewed
	next time.Time  // no try before
	err  error      // of the last try
}

// Certificate says when the client's certificate ends, and why the last try to renew it failed, if it did. A client that
// is used renews its certificate by itself when two thirds of its life are over.
func (c *Client) Certificate() (ends time.Time, renewal error) {
	c.cert.mu.Lock()
	defer c.cert.mu.Unlock()
	return c.cert.ends(), c.cert.err
}

func (k *certificate) ends() time.Time {
	if leaf := k.store.Certificate().Leaf; leaf != nil {
		return leaf.NotAfter
	}
	return time.Time{}
}

// check refuses what TLS would refuse less clearly: a certificate that has ended. Another process may have renewed it.
func (k *certificate) check() error {
	if ends := k.ends(); ends.IsZero() || time.Now().Before(ends) {
		return nil
	}
	if k.store.Reload() == nil && time.Now().Before(k.ends()) {
		return nil
	}
	name := k.store.Peer().Name
	return fault.New(fault.Expired, "call coordinator", "the certificate of operator %s in %s ended on %s", name, k.store.Dir(), k.ends().Local().Format(time.DateTime)).
		WithHelp("another operator makes a token with `farrier operator token %s`, or root on a coordinator's host with `farrier-coordinator operator-token %s`; then: farrier operator join TOKEN", name, name)
}

// renew gets a fresh certificate if it is time. The calls go on with the old one when that fails: Certificate tells why.
func (k *certificate) renew(ctx context.Context) {
	now := time.Now()
	if k.store.Peer().Role != identity.RoleOperator || now.Before(k.store.RenewAt()) || !k.mu.TryLock() {
		return
	}
	defer k.mu.Unlock()
	if now.Before(k.next) {
		return
	}
	k.next = now.Add(renewEvery)
	k.err = k.renewLocked(ctx)
}

// renewLocked holds the directory's lock, so that of several processes one renews and the others take over what it got.
func (k *certificate) renewLocked(ctx context.Context) error {
	const op = "renew certificate"
	f, err := os.OpenFile(filepath.Join(k.store.Dir(), renewLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fault.Wrap(op, err)
	}
	defer f.Close() // gives the lock back
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return nil // another process is at it
	}
	before := k.store.Certificate().Certificate
	if err := k.store.Reload(); err != nil {
		return fault.Wrap(op, err)
	}
	if !slices.EqualFunc(before, k.store.Certificate().Certificate, bytes.Equal) {
		return nil // by its bytes: two that were made within one second end together
	}
	csr, err := k.store.CSR()
	if err != nil {
		return fault.Wrap(op, err)
	}
	ctx, cancel := context.WithTimeout(ctx, renewWait)
	defer cancel()
	res, err := k.join.Renew(ctx, &farrierv1.RenewRequest{CsrDer: csr})
	if err != nil {
		return fault.Wrap(op, Fault(err))
	}
	return fault.Wrap(op, k.store.Put(res.GetChainDer(), res.GetCaDer()))
}

// learn takes over from an answer which coordinators are believed no more, and the members' addresses. These it writes where Open
// read them, so that the next program finds a coordinator when the ones of before are gone. A file without the owner's right to
// write is left as it is.
func (c *Client) learn(from string, h http.Header) {
	if text := h.Get(headerRevoked); text != "" {
		_ = c.cert.store.Revoke(keys(text)...) // the directory may be read-only: this client knows them now
	}
	text := h.Get(headerMembers)
	if text == "" {
		return
	}
	list, changed := c.endpoints.learn(from, strings.Split(text, ","))
	if !changed || c.servers == "" {
		return
	}
	_ = writeServers(c.servers, list) // the directory may be read-only: this client knows them now
}

// keys reads a header's keys. What is none is passed over: the header is of a coordinator, and may be of a newer one.
func keys(text string) (all [][32]byte) {
	for part := range strings.SplitSeq(text, ",") {
		var k [32]byte
		if n, err := hex.Decode(k[:], []byte(part)); err == nil && n == len(k) {
			all = append(all, k)
		}
	}
	return all
}

func writeServers(path string, addresses []string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o200 == 0 {
		return nil
	}
	return WriteServers(path, addresses, info.Mode().Perm())
}

// WriteServers writes a file of addresses as Open reads it: whole, or not at all.
func WriteServers(path string, addresses []string, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone already when all went well
	defer tmp.Close()
	if _, err := tmp.WriteString(strings.Join(addresses, "\n") + "\n"); err != nil {
		return err
	}
	if err := tmp.Chmod(mode); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
