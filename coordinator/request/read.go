package request

import (
	"context"
	"errors"

	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Read is a view that holds everything committed before the call, unless stale is asked for. A caller that this view's roster
// does not have is refused, whatever the member knew when the call came.
func (d *Desk) Read(ctx context.Context, stale bool) (*state.View, error) {
	if stale {
		return d.cfg.Reader.View(), nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*d.cfg.Leader.Wait(), errReadTimeout)
	defer cancel()
	index, err := d.cfg.Leader.ReadIndex(ctx)
	if err != nil {
		if errors.Is(context.Cause(ctx), errReadTimeout) {
			return nil, errReadTimeout
		}
		return nil, fault.Wrap("read", err)
	}
	if err := d.cfg.Reader.WaitApplied(ctx, index); err != nil {
		if errors.Is(context.Cause(ctx), errReadTimeout) {
			return nil, fault.New(fault.Timeout, "read", "coordinator %s is behind: it has applied %d of %d log entries", d.cfg.Member, d.cfg.Reader.View().Index(), index).
				WithHelp("ask another coordinator; `farrier coordinator members` shows who is behind; a stale read answers at once")
		}
		return nil, fault.Wrap("read", err)
	}
	v := d.cfg.Reader.View()
	if _, err := access.Admitted(v, access.Of(ctx)); err != nil {
		return nil, err
	}
	return v, nil
}

var errReadTimeout = fault.New(fault.NoQuorum, "read", "no leader confirmed the read in time").
	WithHelp("more than half of the coordinators must run; a stale read answers without them")
