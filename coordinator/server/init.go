package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/config"
	"github.com/farrier-project/farrier/coordinator/membership"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/replica/bootstrap"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/pkg/secret"
)

// ServersFile is the file beside an operator's certificate that lists the coordinators' API addresses, one a
// line: pkg/client reads it.
const ServersFile = "servers"

// InitOptions say how a cluster is made.
type InitOptions struct {
	OperatorDir string // gets a certificate for the command line. Default: "operator" beside the data directory
	Operator    string // the name in it. Default "admin"
	Run         bool   // go on as Run does
	// FromArchive is the snapshot of a cluster whose coordinators are all lost: it is made anew from that, with the
	// sealing keys in the key file, instead of a new one.
	FromArchive string
}

// Init makes a cluster of one coordinator: CA, sealing keys, certificates, and the first log entry; or an archive's
// cluster again, with the CA and the keys that it had. What was
// written is left in place when it fails half-way, and member.json, which comes last, marks success.
func Init(ctx context.Context, cfg config.Config, env Env, o InitOptions) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if err := refuseInitialised(cfg.Data); err != nil {
		return err
	}
	if o.OperatorDir == "" {
		o.OperatorDir = filepath.Join(filepath.Dir(cfg.Data), "operator")
	}
	if o.Operator == "" {
		o.Operator = "admin"
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return fault.Wrap("make data directory", err)
	}
	ls, err := listen(cfg)
	if err != nil {
		return err
	}
	begin := initialise
	if o.FromArchive != "" {
		begin = recoverLost
	}
	if err := begin(ctx, cfg, env, ls, o); err != nil {
		ls.close()
		return err
	}
	if !o.Run {
		ls.close()
		fmt.Fprintf(env.Out, "start it:   farrier-coordinator run --data %s\n", cfg.Data)
		return nil
	}
	return run(ctx, cfg, env, ls)
}

func initialise(_ context.Context, cfg config.Config, env Env, ls *listeners, o InitOptions) error {
	if _, err := os.Stat(cfg.KeyFile); err == nil {
		return fault.New(fault.Exists, "make key file", "%s exists", cfg.KeyFile).
			WithHelp("it may hold the only keys to another cluster's secrets: move it away, or give another --key-file")
	}
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // crypto/rand.Read never fails
	clusterID := hex.EncodeToString(raw[:])
	ca, err := identity.NewCA(clusterID)
	if err != nil {
		return err
	}
	keys := secret.NewKeyring()
	keyID, box, err := keys.Seal(ca.KeyDER(), "ca")
	if err != nil {
		return err
	}
	if err := keys.Save(cfg.KeyFile); err != nil {
		return err
	}
	id, err := issueTo(identityDir(cfg), ca, identity.Peer{Cluster: clusterID, Role: identity.RoleCoordinator, Name: cfg.Name}, hosts(ls.at), cfg.CertificateTTL)
	if err != nil {
		return err
	}
	admin, err := writeOperator(o, ca, clusterID, ls.at, cfg.CertificateTTL)
	if err != nil {
		return err
	}
	first := command.Command{
		Header: command.Header{Cluster: clusterID, At: env.Clock.Now(), Actor: id.Peer().Actor(), Level: membership.Level},
		Body: command.InitCluster{ClusterID: clusterID, CACert: ca.CertDER(), CAKey: node.Sealed{KeyID: keyID, Box: box}, Settings: command.DefaultSettings(),
			Issued: issued(cfg, id, admin)},
	}
	if err := bootstrap.Cluster(place(cfg, id), ls.at.Raft, first); err != nil {
		return err
	}
	return finish(cfg, env, ls, o, clusterID)
}

// finish marks the directory and says what was made.
func finish(cfg config.Config, env Env, ls *listeners, o InitOptions, clusterID string) error {
	if err := keepConfig(cfg, clusterID, ls.bound); err != nil {
		return err
	}
	fmt.Fprintf(env.Out, "cluster:    %s\noperator:   %s (certificate of %q for the command line)\nkey file:   %s (keep a copy: without it secrets are lost)\n",
		clusterID, o.OperatorDir, o.Operator, cfg.KeyFile)
	return nil
}

// recoverLost makes the first coordinator of a cluster whose coordinators are all lost.
func recoverLost(ctx context.Context, cfg config.Config, env Env, ls *listeners, o InitOptions) error {
	const op = "recover cluster"
	keys, err := secret.LoadKeyring(cfg.KeyFile)
	if err != nil {
		return fault.Wrap(op, err)
	}
	f, err := os.Open(o.FromArchive)
	if err != nil {
		return fault.New(fault.NotFound, op, "%w", err).WithHelp("name a file that `farrier coordinator snapshot save` wrote")
	}
	defer f.Close()
	lost, err := bootstrap.ReadLost(ctx, f, 0)
	if err != nil {
		return fault.Wrap(op, err)
	}
	c := lost.View().Cluster()
	ca, err := membership.Authority(keys, c)
	if err != nil {
		return fault.New(fault.KindOf(err), op, "%s does not open what cluster %s sealed: %w", cfg.KeyFile, c.ID, err).
			WithHelp("give the key file of the cluster that the archive is of: --key-file FILE")
	}
	id, err := issueTo(identityDir(cfg), ca, identity.Peer{Cluster: c.ID, Role: identity.RoleCoordinator, Name: cfg.Name}, hosts(ls.at), cfg.CertificateTTL)
	if err != nil {
		return err
	}
	admin, err := writeOperator(o, ca, c.ID, ls.at, cfg.CertificateTTL)
	if err != nil {
		return err
	}
	if err := bootstrap.Recover(place(cfg, id), ls.at.Raft, env.Clock.Now(), lost, command.RecoverRoster{Issued: issued(cfg, id, admin)}); err != nil {
		return err
	}
	fmt.Fprintf(env.Out, "recovered:  %d nodes, as they were on %s\n", lost.View().NodeCount(), lost.At.Format(time.RFC3339))
	return finish(cfg, env, ls, o, c.ID)
}

// issueTo makes a key in dir and a certificate for it. ttl 0 is the default.
func issueTo(dir string, ca *identity.CA, p identity.Peer, hosts []string, ttl time.Duration) (*identity.Store, error) {
	store, err := identity.NewStore(dir)
	if err != nil {
		return nil, err
	}
	return store, store.Certify(ca, p, hosts, ttl)
}

// issued is with what the roster begins.
func issued(cfg config.Config, stores ...*identity.Store) (list []command.Issued) {
	for _, s := range stores {
		p := s.Peer()
		list = append(list, command.Issued{Key: s.Pin(), Role: string(p.Role), Name: p.Name, TTL: cfg.CertificateTTL})
	}
	return list
}

func writeOperator(o InitOptions, ca *identity.CA, clusterID string, at addresses, ttl time.Duration) (*identity.Store, error) {
	store, err := issueTo(o.OperatorDir, ca, identity.Peer{Cluster: clusterID, Role: identity.RoleOperator, Name: o.Operator}, nil, ttl)
	if err != nil {
		return nil, fault.Wrap("write operator's certificate", err)
	}
	return store, fault.Wrap("write operator's servers", writeServers(o.OperatorDir, []string{at.API}))
}

func writeServers(dir string, api []string) error {
	return writeFile(filepath.Join(dir, ServersFile), []byte(strings.Join(api, "\n")+"\n"))
}

func hosts(at addresses) []string {
	var out []string
	for _, a := range []string{at.API, at.Rack} {
		if host, _, err := net.SplitHostPort(a); err == nil {
			out = append(out, host)
		}
	}
	return out
}

func identityDir(cfg config.Config) string { return filepath.Join(cfg.Data, "identity") }
func raftDir(cfg config.Config) string     { return filepath.Join(cfg.Data, "raft") }
