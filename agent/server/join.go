package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"

	"github.com/farrier-project/farrier/agent/config"
	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/pkg/retry"
)

// callTimeout bounds one call to one coordinator.
const callTimeout = 15 * time.Second

// coordinators is where the cluster answers, as joining and renewing learnt it.
type coordinators struct {
	Rack []string `json:"rack"`
	API  []string `json:"api"`
}

func coordinatorsFile(data string) string { return filepath.Join(data, "coordinators.json") }

func readCoordinators(data string) (c coordinators, err error) {
	text, err := os.ReadFile(coordinatorsFile(data))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	return c, fault.Wrap("read the coordinators' addresses", err)
}

// JoinOptions say how an agent joins.
type JoinOptions struct {
	Token     string
	Addresses []string // of coordinators' APIs. Default: those in the token
}

// Join gives the data directory a certificate for the name and group in the token. A directory that has one is
// Exists, but if it has ended: then the agent gets another for the key that it has, and keeps its journal.
func Join(ctx context.Context, cfg config.Config, env Env, o JoinOptions) error {
	token, err := identity.ParseJoinToken(o.Token)
	switch {
	case err != nil:
		return err
	case token.Role != identity.RoleAgent:
		return fault.New(fault.Invalid, "join", "the token is for role %s, not for an agent", token.Role)
	case cfg.Data == "":
		return fault.New(fault.Invalid, "join", "say which data directory").WithHelp("farrier-agent join --token TOKEN --data DIR")
	case cfg.Name != "" && cfg.Name != token.Name:
		return fault.New(fault.Invalid, "join", "the token is for %s, and this agent is named %s", token.Name, cfg.Name)
	}
	if old, err := identity.OpenStore(identityDir(cfg)); err == nil && !(ended(old) && old.Peer().Name == token.Name) {
		return fault.New(fault.Exists, "join", "%s has a certificate already", identityDir(cfg)).
			WithHelp("run it: farrier-agent run --data %s; to join another cluster, take another directory", cfg.Data)
	}
	store, err := identity.NewStore(identityDir(cfg))
	if err != nil {
		return err
	}
	csr, err := store.CSR()
	if err != nil {
		return err
	}
	ramdiskCSR, err := store.RamdiskCSR()
	if err != nil {
		return err
	}
	if len(o.Addresses) == 0 {
		o.Addresses = token.Addresses
	}
	rt := identity.Transport(identity.JoinTLS(token.CAHash))
	defer rt.CloseIdleConnections()
	var res *farrierv1.JoinResponse
	err = eachAddress(ctx, rt, o.Addresses, func(ctx context.Context, c farrierv1connect.JoinServiceClient) (err error) {
		res, err = c.Join(ctx, &farrierv1.JoinRequest{
			Token: o.Token, CsrDer: csr, IntermediateCsrDer: ramdiskCSR, Version: env.Version, FeatureLevel: Level,
		})
		return err
	})
	if err != nil {
		return fault.Wrap("join", err)
	}
	if err := store.Put(res.GetChainDer(), res.GetCaDer()); err != nil {
		return err
	}
	if err := store.PutRamdiskCA(res.GetIntermediateChainDer()); err != nil {
		return err
	}
	if err := writeJSON(coordinatorsFile(cfg.Data), coordinators{res.GetRackAddresses(), res.GetApiAddresses()}); err != nil {
		return fault.Wrap("join", err)
	}
	fmt.Fprintf(env.Out, "joined:     cluster %s as agent %s of group %q\nstart it:   farrier-agent run --data %s\n",
		res.GetClusterId(), res.GetName(), res.GetGroup(), cfg.Data)
	return nil
}

// ended tells whether the certificate's time is over.
func ended(id *identity.Store) bool { return time.Now().After(id.Certificate().Leaf.NotAfter) }

// eachAddress tries one coordinator after the other until one answers, with a result or a refusal.
func eachAddress(ctx context.Context, rt http.RoundTripper, addresses []string, call func(context.Context, farrierv1connect.JoinServiceClient) error) error {
	if len(addresses) == 0 {
		return fault.New(fault.Invalid, "call a coordinator", "no address of a coordinator's API is known")
	}
	var last error
	for _, address := range addresses {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		err := call(ctx, farrierv1connect.NewJoinServiceClient(&http.Client{Transport: rt}, "https://"+address))
		cancel()
		if err == nil {
			return nil
		}
		last = faultOf(address, err)
		switch fault.KindOf(last) {
		case fault.Unavailable, fault.Timeout, fault.NoQuorum, fault.NotLeader, fault.UnknownOutcome: // the calls may be repeated
		default:
			return last // an answer
		}
	}
	return last
}

// faultOf is the typed error that a coordinator sent, or Unavailable.
func faultOf(address string, err error) error {
	var ce *connect.Error
	if errors.As(err, &ce) {
		for _, d := range ce.Details() {
			if v, derr := d.Value(); derr == nil {
				if e, ok := v.(*farrierv1.ErrorDetail); ok {
					return &fault.Error{Kind: fault.ParseKind(e.GetKind()), Op: address, Err: errors.New(e.GetMessage()), Help: e.GetHelp()}
				}
			}
		}
	}
	return fault.New(fault.Unavailable, address, "%w", err)
}

// renewAt is when two thirds of the life of the agent's certificate, or of its ramdisk CA, are over.
func (a *agent) renewAt() time.Time {
	own, ca := a.id.RenewAt(), a.down.RenewCAAt()
	if ca.Before(own) {
		return ca
	}
	return own
}

// renew gets fresh certificates when it is time, until ctx ends.
func (a *agent) renew(ctx context.Context) error {
	back := retry.Backoff{Base: 10 * time.Second, Max: 10 * time.Minute}
	for failures := 0; ; {
		wait := time.NewTimer(max(time.Until(a.renewAt()), time.Second))
		select {
		case <-ctx.Done():
			wait.Stop()
			return ctx.Err()
		case <-wait.C:
		}
		if err := a.renewOnce(ctx); err != nil {
			failures++
			a.env.Log.Warn("certificate not renewed", "failures", failures, "err", err)
			if back.Sleep(ctx, failures) != nil {
				return ctx.Err()
			}
			continue
		}
		failures = 0
		a.env.Log.Info("certificate renewed", "next", a.renewAt())
	}
}

// renewOnce asks for fresh certificates and puts them to use, with the addresses that came along.
func (a *agent) renewOnce(ctx context.Context) error {
	known, err := readCoordinators(a.cfg.Data)
	if err != nil {
		return err
	}
	csr, err := a.id.CSR()
	if err != nil {
		return err
	}
	ramdiskCSR, err := a.id.RamdiskCSR()
	if err != nil {
		return err
	}
	rt := identity.Transport(identity.ClientTLS(a.id, identity.RoleCoordinator))
	defer rt.CloseIdleConnections()
	var res *farrierv1.RenewResponse
	err = eachAddress(ctx, rt, known.API, func(ctx context.Context, c farrierv1connect.JoinServiceClient) (err error) {
		res, err = c.Renew(ctx, &farrierv1.RenewRequest{CsrDer: csr, IntermediateCsrDer: ramdiskCSR})
		return err
	})
	if err != nil {
		return err
	}
	if err := a.id.Put(res.GetChainDer(), res.GetCaDer()); err != nil {
		return err
	}
	if chain := res.GetIntermediateChainDer(); len(chain) > 0 {
		if err := a.id.PutRamdiskCA(chain); err != nil {
			return err
		}
		ca, err := a.id.RamdiskCA()
		if err != nil {
			return err
		}
		a.down.SetCA(ca)
	}
	if len(res.GetRackAddresses()) == 0 {
		return nil
	}
	if len(a.cfg.Coordinators) == 0 {
		a.up.SetAddresses(res.GetRackAddresses())
	}
	return writeJSON(coordinatorsFile(a.cfg.Data), coordinators{res.GetRackAddresses(), res.GetApiAddresses()})
}

// revoked takes in which coordinators are believed no more. A stream to one of them would not have been opened, but for what was
// known then.
func (a *agent) revoked(keys [][32]byte) {
	if err := a.id.Revoke(keys...); err != nil {
		a.env.Log.Warn("revoked coordinators are not on the disk: after a restart they are believed until a coordinator is reached", "err", err)
	}
}
