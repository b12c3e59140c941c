package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/farrier-project/farrier/agent/config"
	"github.com/farrier-project/farrier/agent/dhcp"
	"github.com/farrier-project/farrier/agent/journal"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/heap"
	"github.com/farrier-project/farrier/pkg/identity"
)

// Level is the feature level that this agent speaks.
const Level = 1

// Env is what the process gives the server.
type Env struct {
	Version string
	Log     *slog.Logger
	Clock   clock.Clock
	Stdin   io.Reader // watched with ExitWithStdin
	Out     io.Writer // what people read
}

// System is the environment of a real process.
func System(cfg config.Config, version string) Env {
	level := map[string]slog.Level{"debug": slog.LevelDebug, "warn": slog.LevelWarn, "error": slog.LevelError}[cfg.Log.Level]
	opts := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(os.Stderr, opts)
	if cfg.Log.Format == "json" {
		h = slog.NewJSONHandler(os.Stderr, opts)
	}
	return Env{Version: version, Log: slog.New(h), Clock: clock.System{}, Stdin: os.Stdin, Out: os.Stdout}
}

// Exit codes of the process.
const (
	ExitOK      = 0
	ExitFailure = 1
	ExitUsage   = 2
	ExitFatal   = 70 // the journal failed: start the process again
)

// ExitCode is how the process ends after Run.
func ExitCode(err error) int {
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return ExitOK
	case errors.Is(err, errJournal):
		return ExitFatal
	case fault.Is(err, fault.Invalid):
		return ExitUsage
	default:
		return ExitFailure
	}
}

// heapSlack is by how many bytes an agent's heap may grow before it is collected, if it is small.
const heapSlack = 16 << 20

var errJournal = errors.New("the journal failed") // read-only

func identityDir(cfg config.Config) string { return filepath.Join(cfg.Data, "identity") }

// Run runs an agent that has joined, until ctx ends or it must not go on.
func Run(ctx context.Context, cfg config.Config, env Env) (err error) {
	if err := cfg.Validate(); err != nil {
		return err
	}
	id, err := identity.OpenStore(identityDir(cfg))
	if err != nil {
		return fault.New(fault.Invalid, "open identity", "%w", err).
			WithHelp("join first: farrier-agent join --token TOKEN --data %s", cfg.Data)
	}
	if ended(id) {
		return fault.New(fault.Expired, "open identity", "the certificate of agent %s ended at %s: no coordinator takes it any more",
			id.Peer().Name, id.Certificate().Leaf.NotAfter.Format(time.RFC3339)).
			WithHelp("as an operator: farrier agent token %s --group %s; then here: farrier-agent join --token TOKEN --data %s", id.Peer().Name, id.Peer().Group, cfg.Data)
	}
	if err := settle(&cfg, id); err != nil {
		return err
	}
	env.Log = env.Log.With("agent", cfg.Name)
	j, err := journal.Open(filepath.Join(cfg.Data, "journal"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	ls, err := listen(ctx, cfg)
	if err != nil {
		return err
	}
	defer ls.close()
	a, err := compose(cfg, env, id, j, ls)
	if err != nil {
		return err
	}
	defer a.images.Close()
	if cfg.AddressFile != "" {
		if err := writeJSON(cfg.AddressFile, ls.at); err != nil {
			return fault.Wrap("write address file", err)
		}
	}
	env.Log.Info("agent starts", "group", cfg.Group, "http", ls.at.HTTP, "ramdisk", ls.at.Ramdisk, "incarnation", j.Incarnation(), "version", env.Version)
	err = a.serve(ctx)
	env.Log.Info("agent stopped", "err", err)
	return err
}

// settle takes name and group from the certificate.
func settle(cfg *config.Config, id *identity.Store) error {
	peer := id.Peer()
	if err := identity.RequireRole(peer, identity.RoleAgent); err != nil {
		return err
	}
	if cfg.Name != "" && cfg.Name != peer.Name || cfg.Group != "" && cfg.Group != peer.Group {
		return fault.New(fault.Invalid, "open identity", "the certificate is of agent %s, group %q; the configuration says %s, %q", peer.Name, peer.Group, cfg.Name, cfg.Group).
			WithHelp("an agent changes its name or group by joining again with a token for the new one")
	}
	cfg.Name, cfg.Group = peer.Name, peer.Group
	return nil
}

// serve runs every part until ctx ends or one of them fails.
func (a *agent) serve(ctx context.Context) error {
	if a.cfg.ExitWithStdin {
		var end context.CancelFunc
		ctx, end = context.WithCancel(ctx)
		defer end()
		// The read cannot be called off: the goroutine ends with the process, which is what it waits for.
		go func() { _, _ = io.Copy(io.Discard, a.env.Stdin); end() }()
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := a.tasks.Run(ctx)
		if err != nil && ctx.Err() == nil {
			return errors.Join(errJournal, err)
		}
		return err
	})
	g.Go(func() error { return a.up.Run(ctx, a.tasks) })
	g.Go(func() error { return a.bmcs.Run(ctx) })
	g.Go(func() error { return a.power.Run(ctx) })
	g.Go(func() error { return a.relay.Run(ctx) })
	g.Go(func() error { return a.sim.Run(ctx) })
	g.Go(func() error { return a.down.Run(ctx) })
	g.Go(func() error { return a.down.Serve(ctx, a.ls.ramdisk) })
	g.Go(func() error { return a.http.Serve(ctx, a.ls.http) })
	if a.ls.dhcp != nil {
		g.Go(func() error { return a.dhcp.Serve(ctx, a.ls.dhcp) })
		g.Go(func() error { return a.keepLeases(ctx) })
		if on := a.cfg.DHCP.RouterAdvertisements; on == nil && a.cfg.DHCP.Interface != "" || on != nil && *on {
			g.Go(func() error { return a.advertise(ctx, on != nil) })
		}
	}
	if a.ls.proxy != nil {
		g.Go(func() error { return a.dhcp.ServeProxy(ctx, a.ls.proxy) })
	}
	if a.ls.tftp != nil {
		g.Go(func() error { return a.tftp.Serve(ctx, a.ls.tftp) })
	}
	g.Go(func() error { return a.renew(ctx) })
	g.Go(func() error { return heap.Keep(ctx, heapSlack) })
	stopped := make(chan struct{})
	defer close(stopped)
	defer context.AfterFunc(ctx, func() { a.watchStop(stopped) })()
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// advertise answers router solicitations. Where nobody insists, what keeps it from that is a warning.
func (a *agent) advertise(ctx context.Context, insist bool) error {
	err := dhcp.ServeRouterAdvertisements(ctx, a.cfg.DHCP.Interface, a.env.Log)
	if err != nil && !insist && ctx.Err() == nil {
		a.env.Log.Warn("no router advertisements: without IPv6 on the segment iPXE waits 16 s at each boot", "interface", a.cfg.DHCP.Interface, "err", err)
		return nil
	}
	return err
}

// watchStop says so when stopping takes longer than it may. The process's supervisor does the rest.
func (a *agent) watchStop(stopped <-chan struct{}) {
	t := time.NewTimer(a.cfg.StopTimeout)
	defer t.Stop()
	select {
	case <-stopped:
	case <-t.C:
		a.env.Log.Warn("stopping takes long: a step does not end", "timeout", a.cfg.StopTimeout)
	}
}
