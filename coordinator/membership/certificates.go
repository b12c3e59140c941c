package membership

import (
	"cmp"
	"context"
	"encoding/hex"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/message"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// ListCertificates implements CertificateService.
func (s *Service) ListCertificates(ctx context.Context, req *farrierv1.ListCertificatesRequest) (*farrierv1.ListCertificatesResponse, error) {
	v, err := s.cfg.Desk.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	var all []*state.Certificate
	v.Certificates(func(c *state.Certificate) bool {
		if req.GetRole() == "" || req.GetRole() == c.Role {
			all = append(all, c)
		}
		return true
	})
	slices.SortStableFunc(all, func(a, b *state.Certificate) int {
		return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.Name, b.Name), a.JoinedAt.Compare(b.JoinedAt))
	})
	out := &farrierv1.ListCertificatesResponse{}
	for _, c := range all {
		out.Certificates = append(out.Certificates, &farrierv1.Certificate{Key: hex.EncodeToString(c.Key[:]), Role: c.Role, Name: c.Name, Group: c.Group,
			InvitedBy: c.InvitedBy, JoinedAt: message.Stamp(c.JoinedAt), RenewedAt: message.Stamp(c.RenewedAt), Left: durationpb.New(max(c.Ends-v.Elapsed(), 0).Truncate(time.Second)),
			RevokedBy: c.RevokedBy, RevokedAt: message.Stamp(c.RevokedAt), Reason: c.Reason})
	}
	return out, nil
}

// RevokeOperator implements CertificateService. The last operator may go as well: root on a coordinator's host lets the next
// one in.
func (s *Service) RevokeOperator(ctx context.Context, req *farrierv1.RevokeOperatorRequest) (*farrierv1.RevokeOperatorResponse, error) {
	const op = "revoke operator"
	if err := message.Name("name", req.GetName()); err != nil {
		return nil, fault.Wrap(op, err)
	}
	res, err := s.cfg.Desk.Once(ctx, func() (command.Result, error) {
		return s.cfg.Desk.Propose(ctx, command.RevokeCertificates{Role: string(identity.RoleOperator), Name: req.GetName(), Reason: req.GetReason()})
	})
	if err != nil {
		return nil, fault.Wrap(op, err)
	}
	left := map[string]bool{}
	s.cfg.Desk.View().Certificates(func(c *state.Certificate) bool {
		if c.Role == string(identity.RoleOperator) && c.RevokedBy == "" {
			left[c.Name] = true
		}
		return true
	})
	return &farrierv1.RevokeOperatorResponse{Revoked: res.Count, OperatorsLeft: uint64(len(left))}, nil
}
