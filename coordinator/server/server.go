package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/farrier-project/farrier/coordinator/config"
	"github.com/farrier-project/farrier/coordinator/dispatch"
	"github.com/farrier-project/farrier/coordinator/plan"
	"github.com/farrier-project/farrier/coordinator/replica"
	"github.com/farrier-project/farrier/coordinator/replica/fatal"
	"github.com/farrier-project/farrier/coordinator/rpc"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/connlimit"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/heap"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/pkg/secret"
)

// Env is what the process gives the server.
type Env struct {
	Version string // of the build
	Log     *slog.Logger
	Clock   clock.Clock
	Stdin   io.Reader                    // watched with ExitWithStdin
	Out     io.Writer                    // what people read
	Ready   func(api, raft, rack string) // called once the listeners are bound, if set; with the advertised addresses
}

// System is the environment of a real process.
func System(cfg config.Config, version string) Env {
	level := map[string]slog.Level{"debug": slog.LevelDebug, "warn": slog.LevelWarn, "error": slog.LevelError}[cfg.Log.Level]
	opts := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(os.Stderr, opts)
	if cfg.Log.Format == "json" {
		h = slog.NewJSONHandler(os.Stderr, opts)
	}
	log := slog.New(h)
	if cfg.Name != "" {
		log = log.With("coordinator", cfg.Name)
	}
	return Env{Version: version, Log: log, Clock: clock.System{}, Stdin: os.Stdin, Out: os.Stdout}
}

// Exit codes of the process.
const (
	ExitOK      = 0
	ExitFailure = 1
	ExitUsage   = 2
	ExitFatal   = 70 // the replica must not go on: start the process again
)

// heapSlack is by how many bytes a coordinator's heap may grow before it is collected, if it is small.
const heapSlack = 64 << 20

// ExitCode is how the process ends after Run.
func ExitCode(err error) int {
	var stop *fatal.Error
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return ExitOK
	case errors.As(err, &stop):
		return stop.ExitCode
	case fault.Is(err, fault.Invalid):
		return ExitUsage
	default:
		return ExitFailure
	}
}

// Run runs a coordinator whose data directory was initialised, until ctx ends or it must not go on.
func Run(ctx context.Context, cfg config.Config, env Env) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	m, err := readMember(cfg.Data)
	if err != nil {
		return err
	}
	if m.Name != cfg.Name {
		return fault.New(fault.Invalid, "open data directory", "%s belongs to member %s, not %s", cfg.Data, m.Name, cfg.Name)
	}
	settle(&cfg, m)
	ls, err := listen(cfg)
	if err != nil {
		return err
	}
	return run(ctx, cfg, env, ls)
}

// run takes over the listeners and closes them.
func run(ctx context.Context, cfg config.Config, env Env, ls *listeners) error {
	defer ls.close()
	id, err := identity.OpenStore(identityDir(cfg))
	if err != nil {
		return err
	}
	keys, err := secret.LoadKeyring(cfg.KeyFile)
	if err != nil {
		return err
	}
	if err := reissue(cfg, env, id, keys); err != nil {
		return err
	}
	s, err := compose(cfg, env, ls, id, keys)
	if err != nil {
		return err
	}
	if cfg.AddressFile != "" {
		if err := writeJSON(cfg.AddressFile, ls.at); err != nil {
			return fault.Wrap("write address file", err)
		}
	}
	if env.Ready != nil {
		env.Ready(ls.at.API, ls.at.Raft, ls.at.Rack)
	}
	env.Log.Info("coordinator starts", "api", ls.at.API, "raft", ls.at.Raft, "rack", ls.at.Rack, "data", cfg.Data, "version", env.Version)
	err = s.serve(ctx)
	env.Log.Info("coordinator stopped", "err", err)
	return err
}

// server is one composed coordinator.
type server struct {
	cfg      config.Config
	env      Env
	ls       *listeners
	id       *identity.Store
	replica  *replica.Replica
	dispatch *dispatch.Dispatch
	api      *rpc.API
	outward  *http.Transport
}

func compose(cfg config.Config, env Env, ls *listeners, id *identity.Store, keys *secret.Keyring) (*server, error) {
	heap.Loading()
	r, err := replica.Open(replicaConfig(cfg, env, ls, id))
	if err != nil {
		return nil, err
	}
	s := &server{cfg: cfg, env: env, ls: ls, id: id, replica: r, outward: outward(id)}
	s.dispatch = dispatch.New(dispatch.Config{
		ID: cfg.Name, Replica: r, Changes: changes{r}, Keyring: keys, Clock: env.Clock, Log: env.Log})
	s.api, err = rpc.New(rpc.Config{
		ID: cfg.Name, Own: s.record(), Reader: r, Proposer: r, Queue: s.dispatch, Changes: changes{r}, Cluster: cluster{r},
		Progress: s.dispatch, Rebalance: plan.Rebalance, HandOn: r.HandOn, Status: func() (uint64, uint64) { st := r.Stats(); return st.Term, st.Committed },
		Keyring: keys, Transport: s.outward, Clock: env.Clock, Log: env.Log,
		LeaderWait: cfg.LeaderWait, CertificateTTL: cfg.CertificateTTL, MaxWatchers: cfg.Limits.Watchers,
	})
	return s, err
}

// serve runs every part until ctx ends or one of them fails.
func (s *server) serve(ctx context.Context) error {
	defer s.outward.CloseIdleConnections()
	stop := make(chan struct{})
	if s.cfg.ExitWithStdin {
		go watchStdin(s.env.Stdin, stop) // ends with the process: a read of stdin cannot be interrupted
	}
	front, frontCtx := errgroup.WithContext(ctx) // what takes requests: it stops first
	back, backCtx := errgroup.WithContext(context.WithoutCancel(ctx))
	backCtx, endBack := context.WithCancel(backCtx)
	defer endBack()
	back.Go(func() error { return s.replica.Run(backCtx) })
	back.Go(func() error { return s.dispatch.Run(backCtx) })
	back.Go(func() error { return s.api.FollowLeader(backCtx) })
	back.Go(func() error { return s.api.Guard(backCtx) })

	rack := http.NewServeMux()
	rack.Handle(s.dispatch.Handler())
	front.Go(func() error {
		return serveHTTP(frontCtx, connlimit.New(s.ls.api, s.cfg.Limits.Connections, s.cfg.Limits.PerAddress), s.api.Handler(),
			identity.ServerTLS(s.id, tls.VerifyClientCertIfGiven), s.cfg.StopTimeout, s.env.Log)
	})
	front.Go(func() error {
		return serveHTTP(frontCtx, connlimit.New(s.ls.rack, s.cfg.Limits.Connections, s.cfg.Limits.PerAddress), rack,
			identity.ServerTLS(s.id, tls.RequireAndVerifyClientCert), s.cfg.StopTimeout, s.env.Log)
	})
	front.Go(func() error { return s.api.KeepVoters(frontCtx, s.reach) })
	front.Go(func() error { return s.renew(frontCtx) })
	front.Go(func() error { return s.announce(frontCtx) })
	front.Go(func() error { return s.keepAuthority(frontCtx) })
	front.Go(func() error { return heap.Keep(frontCtx, heapSlack) })
	front.Go(func() error {
		select {
		case <-frontCtx.Done():
			return nil
		case <-backCtx.Done(): // the replica must not go on
			return errBack
		case <-stop:
			s.env.Log.Info("standard input ended: stopping")
			return errParent
		}
	})
	frontErr := front.Wait()
	endBack()
	backErr := back.Wait()
	if errors.Is(frontErr, errBack) || errors.Is(frontErr, errParent) || errors.Is(frontErr, context.Canceled) {
		frontErr = nil
	}
	if errors.Is(backErr, context.Canceled) {
		backErr = nil
	}
	return errors.Join(backErr, frontErr)
}

var (
	errBack   = errors.New("the replica stopped")
	errParent = errors.New("standard input ended")
)

func watchStdin(in io.Reader, ended chan<- struct{}) {
	_, _ = io.Copy(io.Discard, in) // an error is an end as well
	close(ended)
}

// outward is the transport to other coordinators' APIs.
func outward(id *identity.Store) *http.Transport {
	t := identity.Transport(identity.ClientTLS(id, identity.RoleCoordinator))
	t.MaxConnsPerHost, t.IdleConnTimeout = 64, time.Minute
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: time.Second, PingTimeout: 2 * time.Second}
	return t
}
