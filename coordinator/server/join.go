package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/config"
	"github.com/farrier-project/farrier/coordinator/membership"
	"github.com/farrier-project/farrier/coordinator/replica/bootstrap"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/pkg/secret"
)

func httpClient(rt http.RoundTripper) *http.Client { return &http.Client{Transport: rt} }

// JoinOptions say how a coordinator joins.
type JoinOptions struct {
	Token     string
	Addresses []string // of coordinators' APIs. Default: those in the token
	Run       bool     // go on as Run does
}

// Join makes this a coordinator of an existing cluster: it gets its certificate and the sealing keys. It becomes
// a voter when it runs and the leader reaches it.
func Join(ctx context.Context, cfg config.Config, env Env, o JoinOptions) error {
	token, err := identity.ParseJoinToken(o.Token)
	if err != nil {
		return err
	}
	if token.Role != identity.RoleCoordinator {
		return fault.New(fault.Invalid, "join", "the token is for an %s, not for a coordinator", token.Role).
			WithHelp("farrier-agent join takes an agent's token")
	}
	if cfg.Name == "" {
		cfg.Name, env.Log = token.Name, env.Log.With("coordinator", token.Name)
	}
	if cfg.Name != token.Name {
		return fault.New(fault.Invalid, "join", "the token is for %s, and this coordinator is named %s", token.Name, cfg.Name)
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	if err := refuseInitialised(cfg.Data); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return fault.Wrap("make data directory", err)
	}
	ls, err := listen(cfg)
	if err != nil {
		return err
	}
	if len(o.Addresses) == 0 {
		o.Addresses = token.Addresses
	}
	if err := joinCluster(ctx, cfg, env, ls, token, o); err != nil {
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

func joinCluster(ctx context.Context, cfg config.Config, env Env, ls *listeners, token identity.JoinToken, o JoinOptions) error {
	id, err := identity.NewStore(identityDir(cfg))
	if err != nil {
		return err
	}
	csr, err := id.CSR()
	if err != nil {
		return err
	}
	rt := identity.Transport(identity.JoinTLS(token.CAHash))
	defer rt.CloseIdleConnections()
	var res *farrierv1.JoinResponse
	err = eachAddress(o.Addresses, func(address string) (err error) {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		res, err = fc.NewJoinServiceClient(httpClient(rt), "https://"+address).Join(ctx, &farrierv1.JoinRequest{
			Token: o.Token, CsrDer: csr, RaftAddress: ls.at.Raft, ApiAddress: ls.at.API, RackAddress: ls.at.Rack,
			Version: env.Version, FeatureLevel: membership.Level})
		return err
	})
	if err != nil {
		return fault.Wrap("join", err)
	}
	keys, err := secret.UnmarshalKeyring(res.GetKeyring())
	if err != nil {
		return err
	}
	if err := errors.Join(keys.Save(cfg.KeyFile), id.Put(res.GetChainDer(), res.GetCaDer())); err != nil {
		return err
	}
	if err := bootstrap.Join(place(cfg, id)); err != nil {
		return err
	}
	if err := keepConfig(cfg, res.GetClusterId(), ls.bound); err != nil {
		return err
	}
	fmt.Fprintf(env.Out, "joined:     cluster %s as %s\n", res.GetClusterId(), cfg.Name)
	return nil
}

// eachAddress tries one coordinator after the other until one answers, with a result or a refusal.
func eachAddress(addresses []string, call func(address string) error) error {
	if len(addresses) == 0 {
		return fault.New(fault.Invalid, "call coordinator", "no address is known").WithHelp("give --api-of ADDRESS")
	}
	var last error
	for _, a := range addresses {
		last = call(a)
		if last == nil {
			return nil
		}
		switch f := faultOf(last); fault.KindOf(f) {
		case fault.Unavailable, fault.Timeout, fault.NoQuorum, fault.NotLeader, fault.UnknownOutcome: // the calls may be repeated
		default:
			return f
		}
	}
	return faultOf(last)
}

// faultOf reads the typed error that a coordinator sent.
func faultOf(err error) error {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return err
	}
	for _, d := range ce.Details() {
		if m, derr := d.Value(); derr == nil {
			if x, ok := m.(*farrierv1.ErrorDetail); ok {
				return &fault.Error{Kind: fault.ParseKind(x.GetKind()), Err: errors.New(x.GetMessage()), Help: x.GetHelp()}
			}
		}
	}
	return fault.New(fault.Unavailable, "", "%w", err).WithHelp("give the address of a running coordinator's API")
}

// Rejoin gives a coordinator whose log or state was damaged a fresh start: the cluster forgets it, its log and
// snapshots are moved aside, and it is recorded anew; it becomes a voter again when it runs and has caught up.
// Certificate and keys stay.
func Rejoin(ctx context.Context, cfg config.Config, env Env, addresses []string) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	m, err := readMember(cfg.Data)
	if err != nil {
		return err
	}
	settle(&cfg, m)
	id, err := identity.OpenStore(identityDir(cfg))
	if err != nil {
		return err
	}
	ls, err := listen(cfg) // proves that the coordinator is not running
	if err != nil {
		return err
	}
	defer ls.close()
	rt := outward(id)
	defer rt.CloseIdleConnections()
	call := func(fn func(context.Context, fc.ClusterServiceClient) error) error {
		return eachAddress(addresses, func(a string) error {
			ctx, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			return fn(ctx, fc.NewClusterServiceClient(httpClient(rt), "https://"+a))
		})
	}
	err = call(func(ctx context.Context, c fc.ClusterServiceClient) error {
		_, err := c.RemoveMember(ctx, &farrierv1.RemoveMemberRequest{Id: cfg.Name})
		return err
	})
	if err != nil && !fault.Is(err, fault.NotFound) {
		return fault.Wrap("leave the cluster", err)
	}
	aside := raftDir(cfg) + ".before-" + env.Clock.Now().UTC().Format("20060102T150405Z")
	if err := os.Rename(raftDir(cfg), aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap("move the log aside", err)
	}
	if err := bootstrap.Join(place(cfg, id)); err != nil {
		return err
	}
	err = call(func(ctx context.Context, c fc.ClusterServiceClient) error {
		_, err := c.PutMember(ctx, &farrierv1.PutMemberRequest{FeatureLevel: membership.Level, Member: &farrierv1.Member{
			Id: cfg.Name, RaftAddress: ls.at.Raft, ApiAddress: ls.at.API, RackAddress: ls.at.Rack, Version: env.Version}})
		return err
	})
	if err != nil {
		return fault.Wrap("join again", err)
	}
	fmt.Fprintf(env.Out, "the old log is in %s; delete it once the coordinator runs\nstart it:   farrier-coordinator run --data %s\n", aside, cfg.Data)
	return nil
}
