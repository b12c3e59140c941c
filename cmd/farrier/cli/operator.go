package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/client"
)

func (a *app) operator() *cobra.Command {
	return noun("operator", "People's certificates", a.operatorList(), a.operatorRevoke(), a.token("operator", false), a.operatorJoin())
}

func (a *app) operatorList() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "Show whose certificates the cluster believes, and which it took back", Args: exactly(0)}
	all := c.Flags().Bool("all", false, "agents' and coordinators' certificates too")
	pick := choose(c, (*farrierv1.Certificate)(nil), "name,joined_at")
	c.RunE = a.run(func(s *session, _ []string) error {
		fields, err := pick()
		if err != nil {
			return err
		}
		req := &farrierv1.ListCertificatesRequest{Role: "operator"}
		if *all {
			req.Role = ""
		}
		res, err := s.Certificates.ListCertificates(s.ctx, req)
		if err != nil {
			return err
		}
		return s.things(fields, res, "certificates", func() {
			var rows [][]string
			for _, x := range res.GetCertificates() {
				rows = append(rows, []string{x.GetRole(), x.GetName(), x.GetKey()[:16], x.GetJoinedAt().AsTime().Local().Format(time.DateTime), invited(x), certificateState(x)})
			}
			s.Rows([]string{"ROLE", "NAME", "KEY", "JOINED", "INVITED BY", "STATE"}, rows)
		})
	})
	return c
}

func invited(x *farrierv1.Certificate) string {
	if x.GetInvitedBy() == "" {
		return "init"
	}
	return x.GetInvitedBy()
}

// certificateState says whether a certificate is believed, and for how long, or who took it back.
func certificateState(x *farrierv1.Certificate) string {
	if x.GetRevokedBy() == "" {
		return "ends within " + x.GetLeft().AsDuration().Truncate(time.Minute).String()
	}
	text := fmt.Sprintf("revoked by %s on %s", x.GetRevokedBy(), x.GetRevokedAt().AsTime().Local().Format(time.DateTime))
	if x.GetReason() != "" {
		text += ": " + x.GetReason()
	}
	return text
}

func (a *app) operatorRevoke() *cobra.Command {
	c := &cobra.Command{Use: "revoke OPERATOR", Short: "Take an operator's certificates back at once", Args: exactly(1),
		Long: "Take all certificates of an operator back, and the unused join tokens that the operator made. Every coordinator\n" +
			"refuses them from then on, on open connections too. The operator joins again by a new token, with a new key."}
	reason := c.Flags().String("reason", "", "why; whoever uses the certificate is told")
	c.RunE = a.run(func(s *session, args []string) error {
		res, err := s.Certificates.RevokeOperator(s.ctx, &farrierv1.RevokeOperatorRequest{Name: args[0], Reason: *reason})
		if err != nil {
			return err
		}
		return s.Message(res, func() {
			s.say("%s revoked (certificates: %d)", args[0], res.GetRevoked())
			if res.GetOperatorsLeft() == 0 {
				s.say("no operator is left: on a coordinator's host, `farrier-coordinator operator-token NAME` makes a token for the next one")
			}
		})
	})
	return c
}

// operatorNames are those whose certificates are believed.
func operatorNames(ctx context.Context, cl *client.Client, _ string) (names []string, err error) {
	res, err := cl.Certificates.ListCertificates(ctx, &farrierv1.ListCertificatesRequest{Role: "operator"})
	for _, x := range res.GetCertificates() {
		if x.GetRevokedBy() == "" {
			names = append(names, x.GetName())
		}
	}
	return slices.Compact(names), err
}
