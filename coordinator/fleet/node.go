package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"

	"github.com/klauspost/compress/zstd"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/message"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/request"
	"github.com/farrier-project/farrier/pkg/fault"
)

// CreateNode implements NodeService.
func (s *Service) CreateNode(ctx context.Context, req *farrierv1.CreateNodeRequest) (*farrierv1.CreateNodeResponse, error) {
	res, err := s.cfg.Desk.Once(ctx, func() (command.Result, error) {
		body, err := s.in.NewNode(s.cfg.Desk.View(), req.GetNode(), newUUID())
		if err != nil {
			return command.Result{}, err
		}
		return s.cfg.Desk.Propose(ctx, body)
	})
	if err != nil {
		return nil, fault.Wrap("create node", err)
	}
	out, err := s.show(string(res.Node))
	return &farrierv1.CreateNodeResponse{Node: out}, err
}

// show is a node as it is here after a change of it.
func (s *Service) show(id string) (*farrierv1.Node, error) {
	v := s.cfg.Desk.View()
	n, err := message.FindNode(v, id)
	if err != nil {
		return nil, err
	}
	return s.out.Node(v, n, message.Whole), nil
}

// maxBulkNodes bounds one CreateNodes.
const maxBulkNodes = 1000

// CreateNodes implements NodeService. The ids follow from the request's id, so that a repeat finds the nodes
// that it made before and reports them as made.
func (s *Service) CreateNodes(ctx context.Context, req *farrierv1.CreateNodesRequest) (*farrierv1.CreateNodesResponse, error) {
	if n := len(req.GetNodes()); n == 0 || n > maxBulkNodes {
		return nil, fault.Wrap("create nodes", refusal.Invalid("nodes", "there are %d, from 1 to %d are allowed", n, maxBulkNodes))
	}
	v := s.cfg.Desk.View()
	out := &farrierv1.CreateNodesResponse{Results: make([]*farrierv1.CreateNodesResponse_Result, len(req.GetNodes()))}
	var bodies []command.Body
	var at []int // of each body, the index of its node
	for i, in := range req.GetNodes() {
		id := bulkID(ctx, i)
		if _, there := v.Node(node.ID(id)); there && in.GetId() == "" { // only a repeat can draw the id again
			out.Results[i] = &farrierv1.CreateNodesResponse_Result{Id: id}
			continue
		}
		body, err := s.in.NewNode(v, in, id)
		if err != nil {
			out.Results[i] = &farrierv1.CreateNodesResponse_Result{Error: refusal.Detail(fault.Wrap("create node", err))}
			continue
		}
		bodies, at = append(bodies, body), append(at, i)
	}
	for len(bodies) > 0 {
		n := bulkStep(bodies)
		results, err := s.cfg.Desk.ProposeAlso(ctx, bodies[:n]...)
		if err != nil {
			return nil, fault.Wrap("create nodes", err) // a repeat finds those that were made
		}
		for k, r := range results {
			res := &farrierv1.CreateNodesResponse_Result{Id: string(r.Node)}
			if r.Err != nil {
				res = &farrierv1.CreateNodesResponse_Result{Error: refusal.Detail(fault.Wrap("create node", r.Err))}
			}
			out.Results[at[k]] = res
		}
		bodies, at = bodies[n:], at[n:]
	}
	return out, nil
}

// bulkBytes bounds one proposal of a bulk call, in bytes of its commands: an entry of the log holds no more.
const bulkBytes = 240 << 10

// bulkStep is how many of the next nodes share one proposal.
func bulkStep(next []command.Body) int {
	size := 0
	for n, c := range next {
		b := c.(command.CreateNode)
		if size += 256 + len(b.Node.Data) + 256*len(b.Ports); size > bulkBytes {
			return max(n, 1)
		}
	}
	return len(next)
}

// bulkID is the id of the i-th node of a bulk call.
func bulkID(ctx context.Context, i int) string {
	r := request.ID(ctx)
	if r.IsZero() {
		return newUUID()
	}
	data := append([]byte(access.Of(ctx).Actor()+"\x00"+r.Client+"\x00"), r.Digest[:]...)
	data = binary.BigEndian.AppendUint64(data, r.Seq)
	sum := sha256.Sum256(binary.BigEndian.AppendUint32(data, uint32(i)))
	return message.UUID([16]byte(sum[:16]))
}

// GetNode implements NodeService.
func (s *Service) GetNode(ctx context.Context, req *farrierv1.GetNodeRequest) (*farrierv1.GetNodeResponse, error) {
	v, err := s.cfg.Desk.Read(ctx, req.GetStale())
	if err != nil {
		return nil, err
	}
	n, err := message.FindNode(v, req.GetNode())
	if err != nil {
		return nil, err
	}
	out := s.out.Node(v, n, message.Whole)
	return &farrierv1.GetNodeResponse{Node: out}, message.Keep(out, req.GetMask())
}

// UpdateNode implements NodeService.
func (s *Service) UpdateNode(ctx context.Context, req *farrierv1.UpdateNodeRequest) (*farrierv1.UpdateNodeResponse, error) {
	res, err := s.cfg.Desk.Once(ctx, func() (command.Result, error) { return s.updateNode(ctx, req) })
	if err != nil {
		return nil, fault.Wrap("update node", err)
	}
	out, err := s.show(string(res.Node))
	return &farrierv1.UpdateNodeResponse{Node: out}, err
}

// updateNode makes the change. A change of one key of a map is made on the version that was read, and again on a
// newer one when somebody was faster, unless the caller named the version.
func (s *Service) updateNode(ctx context.Context, req *farrierv1.UpdateNodeRequest) (command.Result, error) {
	const tries = 5
	for try := 1; ; try++ {
		v := s.cfg.Desk.View()
		n, err := message.FindNode(v, message.NameOf(req.GetNode()))
		if err != nil {
			return command.Result{}, err
		}
		body, merged, err := s.in.ChangeNode(v, n, req)
		if err != nil {
			return command.Result{}, err
		}
		res, err := s.cfg.Desk.Queue(ctx, body, req.GetWait())
		if !fault.Is(err, fault.VersionConflict) || req.GetVersion() != 0 || !merged || try == tries {
			return res, err
		}
	}
}

// DeleteNode implements NodeService.
func (s *Service) DeleteNode(ctx context.Context, req *farrierv1.DeleteNodeRequest) (*farrierv1.DeleteNodeResponse, error) {
	_, err := s.cfg.Desk.Once(ctx, func() (command.Result, error) {
		n, err := message.FindNode(s.cfg.Desk.View(), req.GetNode())
		if err != nil {
			return command.Result{}, err
		}
		return s.cfg.Desk.Queue(ctx, command.DeleteNode{Node: n.ID}, req.GetWait())
	})
	return &farrierv1.DeleteNodeResponse{}, fault.Wrap("delete node", err)
}

// SetMaintenance implements NodeService.
func (s *Service) SetMaintenance(ctx context.Context, req *farrierv1.SetMaintenanceRequest) (*farrierv1.SetMaintenanceResponse, error) {
	res, err := s.cfg.Desk.Once(ctx, func() (command.Result, error) {
		n, err := message.FindNode(s.cfg.Desk.View(), req.GetNode())
		if err == nil {
			err = message.Text("reason", req.GetReason(), message.MaxText)
		}
		if err == nil && !req.GetOn() && req.GetReason() != "" {
			err = refusal.Invalid("reason", "a reason goes with turning maintenance on")
		}
		if err != nil {
			return command.Result{}, err
		}
		return s.cfg.Desk.Propose(ctx, command.SetMaintenance{Node: n.ID, On: req.GetOn(), Reason: req.GetReason()})
	})
	if err != nil {
		return nil, fault.Wrap("set maintenance", err)
	}
	out, err := s.show(string(res.Node))
	return &farrierv1.SetMaintenanceResponse{Node: out}, err
}

// WaiveWipe implements NodeService.
func (s *Service) WaiveWipe(ctx context.Context, req *farrierv1.WaiveWipeRequest) (*farrierv1.WaiveWipeResponse, error) {
	res, err := s.cfg.Desk.Once(ctx, func() (command.Result, error) {
		n, err := message.FindNode(s.cfg.Desk.View(), req.GetNode())
		if err == nil {
			err = message.Text("reason", req.GetReason(), message.MaxText)
		}
		if err == nil && strings.TrimSpace(req.GetReason()) == "" {
			err = refusal.Invalid("reason", "say why the disks need no wipe: it is recorded with your name").
				WithHelp("farrier node waive-wipe %s --reason TEXT", message.Label(n))
		}
		if err != nil {
			return command.Result{}, err
		}
		return s.cfg.Desk.Propose(ctx, command.WaiveWipe{Node: n.ID, Reason: req.GetReason()})
	})
	if err != nil {
		return nil, fault.Wrap("waive wipe", err)
	}
	out, err := s.show(string(res.Node))
	return &farrierv1.WaiveWipeResponse{Node: out}, err
}

// maxInventory bounds what a stored inventory may unpack to, in bytes.
const maxInventory = 4 << 20

// GetInventory implements NodeService.
func (s *Service) GetInventory(ctx context.Context, req *farrierv1.GetInventoryRequest) (*farrierv1.GetInventoryResponse, error) {
	v, err := s.cfg.Desk.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	n, err := message.FindNode(v, req.GetNode())
	if err != nil {
		return nil, err
	}
	blob, at, ok := v.Inventory(n.ID)
	if !ok {
		return nil, fault.New(fault.NotFound, "get inventory", "node %s was never inspected", n.ID).
			WithHelp("farrier node inspect %s", message.Label(n))
	}
	data, err := unpack(blob)
	if err != nil {
		return nil, fault.New(fault.Corrupt, "get inventory", "%w", err)
	}
	return &farrierv1.GetInventoryResponse{InventoryJson: data, At: message.Stamp(at)}, nil
}

func unpack(blob []byte) ([]byte, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxInventory), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	data, err := dec.DecodeAll(blob, nil)
	if err == nil && len(data) > maxInventory {
		err = errors.New("it is larger than its bound")
	}
	return data, err
}
