package server

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/farrier-project/farrier/coordinator/config"
	"github.com/farrier-project/farrier/coordinator/membership"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/pkg/secret"
)

// authorityFile keeps the cluster's CA as the replicated state has it, its key sealed. Where all coordinators were off until
// their certificates ended, none of them can ask a leader for another.
const authorityFile = "authority.json"

// authority is what authorityFile holds.
type authority struct {
	Cluster string `json:"cluster"`
	Cert    []byte `json:"cert"` // DER
	KeyID   uint32 `json:"key_id"`
	Box     []byte `json:"box"`
}

func (a authority) unseal(keys *secret.Keyring) (*identity.CA, error) {
	return membership.Authority(keys, &state.Cluster{ID: a.Cluster, CACert: a.Cert, CAKey: node.Sealed{KeyID: a.KeyID, Box: a.Box}})
}

func readAuthority(data string) (a authority, err error) {
	path := filepath.Join(data, authorityFile)
	raw, err := os.ReadFile(path)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		return a, fault.New(fault.Corrupt, "read "+path, "%w", err)
	}
	return a, nil
}

// keepAuthority writes authorityFile once the state is known here.
func (s *server) keepAuthority(ctx context.Context) error {
	wake, stop := changes{s.replica}.Subscribe()
	defer stop()
	for s.replica.View().Cluster().ID == "" {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		}
	}
	c := s.replica.View().Cluster()
	want, err := json.MarshalIndent(authority{Cluster: c.ID, Cert: c.CACert, KeyID: c.CAKey.KeyID, Box: c.CAKey.Box}, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(s.cfg.Data, authorityFile)
	if have, err := os.ReadFile(path); err == nil && string(have) == string(want) {
		return nil
	}
	if err := writeFile(path, want); err != nil { // the certificate is good for weeks: no reason to stop
		s.env.Log.Warn("the cluster's CA was not kept: should all coordinators be off until their certificates end, they cannot start again", "file", path, "err", err)
	}
	return nil
}

// reissue gives this coordinator a certificate for the key that it has, if its own has ended: who has the sealing keys has
// the CA. Its peers know the key, and refuse it if it was taken back.
func reissue(cfg config.Config, env Env, id *identity.Store, keys *secret.Keyring) error {
	const op = "renew the ended certificate"
	old := id.Certificate().Leaf
	if env.Clock.Now().Before(old.NotAfter) {
		return nil
	}
	ended := old.NotAfter.Format(time.RFC3339)
	a, err := readAuthority(cfg.Data)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Expired, op, "the certificate ended at %s, and there is no %s", ended, filepath.Join(cfg.Data, authorityFile)).
			WithHelp("if other coordinators run: make a token there (farrier coordinator token %s), and join with an empty data directory; "+
				"if none does: farrier-coordinator init --from-archive FILE", cfg.Name)
	}
	if err != nil {
		return fault.Wrap(op, err)
	}
	ca, err := a.unseal(keys)
	if err != nil {
		return fault.Wrap(op, err)
	}
	hosts := old.DNSNames
	for _, ip := range old.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	if err := id.Certify(ca, id.Peer(), hosts, cfg.CertificateTTL); err != nil {
		return fault.Wrap(op, err)
	}
	env.Log.Warn("the certificate had ended: this coordinator was off too long to ask for another, and issued itself one with the cluster's sealing keys",
		"ended", ended, "ends", id.Certificate().Leaf.NotAfter)
	return nil
}
