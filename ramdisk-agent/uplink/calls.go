package uplink

import (
	"context"
	"crypto/x509"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/ramdisk-agent/progress"
	"github.com/farrier-project/farrier/ramdisk-agent/steps"
	"github.com/farrier-project/farrier/ramdisk-agent/work"
)

// renewAfter is two thirds of a certificate's life; dates matter only by their difference.
func renewAfter(der []byte) time.Duration {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return minRenew
	}
	return max(c.NotAfter.Sub(c.NotBefore)*2/3, minRenew)
}

// Beat is the answer to a heartbeat.
type Beat struct {
	Interval time.Duration // until the next; 0: as before
	Halt     bool
}

// Heartbeat tells the agent that the machine lives and what it does. It tries each agent once.
func (u *Uplink) Heartbeat(ctx context.Context, running *work.Ref, p progress.Progress) (Beat, error) {
	u.mu.Lock()
	u.seq++
	req := &farrierv1.HeartbeatRequest{BootId: u.cfg.Machine.BootID, Seq: u.seq}
	u.mu.Unlock()
	if running != nil {
		req.Running = orderRef(*running)
		req.Progress = &farrierv1.Progress{Done: p.Done, Total: p.Total, Rate: p.Rate, Text: p.Text, Skipped: p.Skipped}
	}
	var b Beat
	err := u.call(ctx, "heartbeat", callTimeout, u.count(), func(ctx context.Context, a *agent) error {
		resp, err := a.rpc.Heartbeat(ctx, req)
		if err != nil {
			return err
		}
		b = Beat{Interval: resp.GetInterval().AsDuration(), Halt: resp.GetHalt()}
		u.learn(resp.GetAgents())
		return nil
	})
	return halted(b, err)
}

// halted makes an ended boot attempt an order to halt.
func halted(b Beat, err error) (Beat, error) {
	if fault.Is(err, fault.Expired) {
		return Beat{Halt: true}, nil
	}
	return b, err
}

// Command is the answer to a poll; all of it may be absent.
type Command struct {
	Order  *work.Order
	Cancel *work.Ref
	Halt   bool
}

// Next waits for the next command. have is the order that runs or ran last.
func (u *Uplink) Next(ctx context.Context, have *work.Ref) (Command, error) {
	req := &farrierv1.NextCommandRequest{BootId: u.cfg.Machine.BootID, Wait: wait()}
	if have != nil {
		req.Have = orderRef(*have)
	}
	var resp *farrierv1.NextCommandResponse
	err := u.call(ctx, "ask for a command", pollWait+callTimeout, 0, func(ctx context.Context, a *agent) (err error) {
		resp, err = a.rpc.NextCommand(ctx, req)
		return err
	})
	if fault.Is(err, fault.Expired) {
		return Command{Halt: true}, nil
	}
	if err != nil {
		return Command{}, err
	}
	out := Command{Halt: resp.GetHalt()}
	c := resp.GetCommand()
	if c.GetRef() == nil {
		return out, nil
	}
	ref := fromRef(c.GetRef())
	if c.GetCancel() {
		out.Cancel = &ref
		return out, nil
	}
	out.Order = &work.Order{Ref: ref, Step: c.GetStep(), Args: c.GetArgs(), Secret: c.GetSecretArgs(), Resumed: c.GetResumed(), Image: c.GetImagePath()}
	return out, nil
}

// Report tells an outcome until an agent answers that it is committed. fault.Expired: the boot attempt is over;
// fault.Invalid and TooLarge: no agent will ever take it.
func (u *Uplink) Report(ctx context.Context, o work.Outcome) error {
	req := &farrierv1.ReportStepRequest{BootId: u.cfg.Machine.BootID, Outcome: &farrierv1.StepOutcome{
		Ref: orderRef(o.Ref), BootId: u.cfg.Machine.BootID, Ok: o.OK, Error: o.Error, ErrorKind: o.Kind, Retryable: o.Retryable,
		Facts: o.Facts, Inventory: o.Inventory,
	}}
	return u.call(ctx, "report", reportTimeout, 0, func(ctx context.Context, a *agent) error {
		_, err := a.rpc.ReportStep(ctx, req)
		return err
	})
}

// Manifest implements steps.Images: it asks every agent a few times.
func (u *Uplink) Manifest(ctx context.Context, sha256 string) (steps.Manifest, error) {
	var m steps.Manifest
	err := u.call(ctx, "get manifest", manifestTime, 5*u.count(), func(ctx context.Context, a *agent) error {
		resp, err := a.rpc.GetManifest(ctx, &farrierv1.GetManifestRequest{Sha256: sha256})
		if err != nil {
			return err
		}
		if resp.GetFileSize() > 1<<62 || resp.GetContentSize() > 1<<62 {
			return fault.New(fault.Corrupt, "read manifest", "sizes are out of range")
		}
		m = steps.Manifest{SHA256: resp.GetSha256(), Format: resp.GetFormat(), FileSize: int64(resp.GetFileSize()),
			ContentSize: int64(resp.GetContentSize()), ChunkSize: int64(resp.GetChunkSize()), Chunks: resp.GetChunks()}
		return nil
	})
	return m, err
}

func orderRef(r work.Ref) *farrierv1.OrderRef {
	return &farrierv1.OrderRef{Node: r.Node, Flow: r.Flow, Step: r.Step, Attempt: r.Attempt, Token: r.Token}
}

func fromRef(r *farrierv1.OrderRef) work.Ref {
	return work.Ref{Node: r.GetNode(), Flow: r.GetFlow(), Step: r.GetStep(), Attempt: r.GetAttempt(), Token: r.GetToken()}
}
