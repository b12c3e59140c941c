package server

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/config"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// OperatorTokenOptions say for whom a token is made.
type OperatorTokenOptions struct {
	Name      string // of the operator
	TTL       time.Duration
	Addresses []string // of coordinators' APIs. Default: this member's own
}

// OperatorToken prints a one-use token with which an operator joins. It is for root on a coordinator's host, and speaks
// with the coordinator's own certificate: it works when no operator has a valid one. The cluster must have a leader.
func OperatorToken(ctx context.Context, cfg config.Config, env Env, o OperatorTokenOptions) error {
	m, err := readMember(cfg.Data)
	if err != nil {
		return err
	}
	id, err := identity.OpenStore(identityDir(cfg))
	if err != nil {
		return err
	}
	if len(o.Addresses) == 0 {
		o.Addresses = []string{m.Listen.API}
	}
	rt := outward(id)
	defer rt.CloseIdleConnections()
	var res *farrierv1.CreateJoinTokenResponse
	err = eachAddress(o.Addresses, func(address string) (err error) {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		res, err = fc.NewClusterServiceClient(httpClient(rt), "https://"+address).CreateJoinToken(ctx, &farrierv1.CreateJoinTokenRequest{
			Role: string(identity.RoleOperator), Name: o.Name, Ttl: durationpb.New(o.TTL)})
		return err
	})
	if err != nil {
		return fault.Wrap("make operator's token", err)
	}
	_, err = fmt.Fprintln(env.Out, res.GetToken())
	return err
}
