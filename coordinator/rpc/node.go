package rpc

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// nodeService implements NodeService.
type nodeService struct{ *API }

// CreateNode implements NodeService.
func (s nodeService) CreateNode(ctx context.Context, req *farrierv1.CreateNodeRequest) (*farrierv1.CreateNodeResponse, error) {
	res, err := s.once(ctx, func() (command.Result, error) {
		body, err := s.newNode(s.Reader.View(), req.GetNode(), newUUID())
		if err != nil {
			return command.Result{}, err
		}
		return s.propose(ctx, body)
	})
	if err != nil {
		return nil, fault.Wrap("create node", err)
	}
	out, err := s.show(string(res.Node))
	return &farrierv1.CreateNodeResponse{Node: out}, err
}

// show is a node as it is here after a change of it.
func (a *API) show(id string) (*farrierv1.Node, error) {
	v := a.Reader.View()
	n, err := resolve(v, id)
	if err != nil {
		return nil, err
	}
	return a.nodeOut(v, n, whole), nil
}

// newNode checks a node to be created, seals its secrets, and makes the command. fallback is its id unless the
// request has one.
func (a *API) newNode(v *state.View, in *farrierv1.Node, fallback string) (command.CreateNode, error) {
	if in == nil {
		return command.CreateNode{}, refusal.Invalid("node", "it is missing")
	}
	id := strings.ToLower(in.GetId())
	if id == "" {
		id = fallback
	}
	if !isUUID(id) {
		return command.CreateNode{}, refusal.Invalid("node.id", "%q is not a UUID", refusal.Clip(in.GetId()))
	}
	if in.GetDriver() == "" {
		return command.CreateNode{}, refusal.Invalid("node.driver", "say which hardware type manages the node").
			WithHelp("%s", driversHelp(v))
	}
	n := node.Node{ID: node.ID(id)}
	for _, f := range nodeFields {
		if err := f.set(a, &n, in); err != nil {
			return command.CreateNode{}, err
		}
	}
	if err := requireAgent(v, n.Group, n.Driver); err != nil {
		return command.CreateNode{}, err
	}
	ports, err := newPorts(n.ID, in.GetPorts())
	return command.CreateNode{Node: node.Pack(&n), Ports: ports}, err
}

// newPorts checks the ports of a node to be created. When none of them says that it boots, all do: a machine
// without a port that boots could not be worked on.
func newPorts(id node.ID, in []*farrierv1.Port) ([]node.Port, error) {
	if len(in) > maxPorts {
		return nil, refusal.Invalid("node.ports", "at most %d ports are allowed", maxPorts)
	}
	pxe := slices.ContainsFunc(in, (*farrierv1.Port).GetPxeEnabled)
	out := make([]node.Port, 0, len(in))
	seen := map[string]bool{}
	for i, p := range in {
		port, err := newPort(fmt.Sprintf("node.ports[%d]", i), id, p)
		if err != nil {
			return nil, err
		}
		if seen[port.Address] {
			return nil, refusal.Invalid(fmt.Sprintf("node.ports[%d].address", i), "%s is there twice", port.Address)
		}
		seen[port.Address] = true
		port.PXEEnabled = port.PXEEnabled || !pxe
		out = append(out, port)
	}
	return out, nil
}

// CreateNodes implements NodeService. The ids follow from the request's id, so that a repeat finds the nodes
// that it made before and reports them as made.
func (s nodeService) CreateNodes(ctx context.Context, req *farrierv1.CreateNodesRequest) (*farrierv1.CreateNodesResponse, error) {
	if n := len(req.GetNodes()); n == 0 || n > maxBulkNodes {
		return nil, fault.Wrap("create nodes", refusal.Invalid("nodes", "there are %d, from 1 to %d are allowed", n, maxBulkNodes))
	}
	v := s.Reader.View()
	out := &farrierv1.CreateNodesResponse{Results: make([]*farrierv1.CreateNodesResponse_Result, len(req.GetNodes()))}
	var cmds []command.Command
	var at []int // of each command, the index of its node
	for i, in := range req.GetNodes() {
		id := bulkID(ctx, i)
		if _, there := v.Node(node.ID(id)); there && in.GetId() == "" { // only a repeat can draw the id again
			out.Results[i] = &farrierv1.CreateNodesResponse_Result{Id: id}
			continue
		}
		body, err := s.newNode(v, in, id)
		if err != nil {
			out.Results[i] = &farrierv1.CreateNodesResponse_Result{Error: refusal.Detail(fault.Wrap("create node", err))}
			continue
		}
		cmd := s.command(ctx, body)
		cmd.Header.Request = command.RequestID{}
		cmds, at = append(cmds, cmd), append(at, i)
	}
	for len(cmds) > 0 {
		n := bulkStep(cmds)
		results, err := s.Proposer.Propose(ctx, cmds[:n]...)
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
		cmds, at = cmds[n:], at[n:]
	}
	return out, nil
}

// bulkBytes bounds one proposal of a bulk call, in bytes of its commands: an entry of the log holds no more.
const bulkBytes = 240 << 10

// bulkStep is how many of the next nodes share one proposal.
func bulkStep(next []command.Command) int {
	size := 0
	for n, c := range next {
		b := c.Body.(command.CreateNode)
		if size += 256 + len(b.Node.Data) + 256*len(b.Ports); size > bulkBytes {
			return max(n, 1)
		}
	}
	return len(next)
}

// bulkID is the id of the i-th node of a bulk call.
func bulkID(ctx context.Context, i int) string {
	r := requestOf(ctx)
	if r.IsZero() {
		return newUUID()
	}
	data := append([]byte(actorOf(callerOf(ctx))+"\x00"+r.Client+"\x00"), r.Digest[:]...)
	data = binary.BigEndian.AppendUint64(data, r.Seq)
	sum := sha256.Sum256(binary.BigEndian.AppendUint32(data, uint32(i)))
	return formatUUID([16]byte(sum[:16]))
}

// GetNode implements NodeService.
func (s nodeService) GetNode(ctx context.Context, req *farrierv1.GetNodeRequest) (*farrierv1.GetNodeResponse, error) {
	v, err := s.read(ctx, req.GetStale())
	if err != nil {
		return nil, err
	}
	n, err := resolve(v, req.GetNode())
	if err != nil {
		return nil, err
	}
	out := s.nodeOut(v, n, whole)
	return &farrierv1.GetNodeResponse{Node: out}, keep(out, req.GetMask())
}

// UpdateNode implements NodeService.
func (s nodeService) UpdateNode(ctx context.Context, req *farrierv1.UpdateNodeRequest) (*farrierv1.UpdateNodeResponse, error) {
	res, err := s.once(ctx, func() (command.Result, error) { return s.updateNode(ctx, req) })
	if err != nil {
		return nil, fault.Wrap("update node", err)
	}
	out, err := s.show(string(res.Node))
	return &farrierv1.UpdateNodeResponse{Node: out}, err
}

// updateNode makes the change. A change of one key of a map is made on the version that was read, and again on a
// newer one when somebody was faster, unless the caller named the version.
func (a *API) updateNode(ctx context.Context, req *farrierv1.UpdateNodeRequest) (command.Result, error) {
	const tries = 5
	for try := 1; ; try++ {
		v := a.Reader.View()
		n, err := resolve(v, nodeName(req.GetNode()))
		if err != nil {
			return command.Result{}, err
		}
		body, merged, err := a.change(v, n, req)
		if err != nil {
			return command.Result{}, err
		}
		res, err := a.queue(ctx, body, req.GetWait())
		if !fault.Is(err, fault.VersionConflict) || req.GetVersion() != 0 || !merged || try == tries {
			return res, err
		}
	}
}

func nodeName(n *farrierv1.Node) string {
	if n.GetId() != "" {
		return n.GetId()
	}
	return n.GetName()
}

// change makes the command of an update. merged tells that it depends on what was read.
func (a *API) change(v *state.View, n *node.Node, req *farrierv1.UpdateNodeRequest) (body command.UpdateNode, merged bool, err error) {
	paths := req.GetMask().GetPaths()
	if len(paths) == 0 {
		return body, false, refusal.Invalid("mask", "name the fields to change")
	}
	next := n.Clone()
	for _, path := range paths {
		field, err := lookupField(path)
		if err != nil {
			return body, false, err
		}
		if key, ok := strings.CutPrefix(path, field.path+"."); ok {
			merged = true
			err = field.setKey(a, next, req.GetNode(), key)
		} else {
			merged = merged || field.path == "driver_info" // hidden values stand for what is stored
			err = field.set(a, next, req.GetNode())
		}
		if err != nil {
			return body, false, err
		}
		if !slices.Contains(body.Fields, field.path) {
			body.Fields = append(body.Fields, field.path)
		}
	}
	if next.Driver != n.Driver || next.Group != n.Group {
		if err := requireAgent(v, next.Group, next.Driver); err != nil {
			return body, false, err
		}
	}
	body.Node, body.Version = *next, req.GetVersion()
	if merged && body.Version == 0 {
		body.Version = n.Version
	}
	return body, merged, nil
}

// DeleteNode implements NodeService.
func (s nodeService) DeleteNode(ctx context.Context, req *farrierv1.DeleteNodeRequest) (*farrierv1.DeleteNodeResponse, error) {
	_, err := s.once(ctx, func() (command.Result, error) {
		n, err := resolve(s.Reader.View(), req.GetNode())
		if err != nil {
			return command.Result{}, err
		}
		return s.queue(ctx, command.DeleteNode{Node: n.ID}, req.GetWait())
	})
	return &farrierv1.DeleteNodeResponse{}, fault.Wrap("delete node", err)
}

// SetMaintenance implements NodeService.
func (s nodeService) SetMaintenance(ctx context.Context, req *farrierv1.SetMaintenanceRequest) (*farrierv1.SetMaintenanceResponse, error) {
	res, err := s.once(ctx, func() (command.Result, error) {
		n, err := resolve(s.Reader.View(), req.GetNode())
		if err == nil {
			err = checkText("reason", req.GetReason(), maxText)
		}
		if err == nil && !req.GetOn() && req.GetReason() != "" {
			err = refusal.Invalid("reason", "a reason goes with turning maintenance on")
		}
		if err != nil {
			return command.Result{}, err
		}
		return s.propose(ctx, command.SetMaintenance{Node: n.ID, On: req.GetOn(), Reason: req.GetReason()})
	})
	if err != nil {
		return nil, fault.Wrap("set maintenance", err)
	}
	out, err := s.show(string(res.Node))
	return &farrierv1.SetMaintenanceResponse{Node: out}, err
}

// WaiveWipe implements NodeService.
func (s nodeService) WaiveWipe(ctx context.Context, req *farrierv1.WaiveWipeRequest) (*farrierv1.WaiveWipeResponse, error) {
	res, err := s.once(ctx, func() (command.Result, error) {
		n, err := resolve(s.Reader.View(), req.GetNode())
		if err == nil {
			err = checkText("reason", req.GetReason(), maxText)
		}
		if err == nil && strings.TrimSpace(req.GetReason()) == "" {
			err = refusal.Invalid("reason", "say why the disks need no wipe: it is recorded with your name").
				WithHelp("farrier node waive-wipe %s --reason TEXT", nodeLabel(n))
		}
		if err != nil {
			return command.Result{}, err
		}
		return s.propose(ctx, command.WaiveWipe{Node: n.ID, Reason: req.GetReason()})
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
func (s nodeService) GetInventory(ctx context.Context, req *farrierv1.GetInventoryRequest) (*farrierv1.GetInventoryResponse, error) {
	v, err := s.read(ctx, false)
	if err != nil {
		return nil, err
	}
	n, err := resolve(v, req.GetNode())
	if err != nil {
		return nil, err
	}
	blob, at, ok := v.Inventory(n.ID)
	if !ok {
		return nil, fault.New(fault.NotFound, "get inventory", "node %s was never inspected", n.ID).
			WithHelp("farrier node inspect %s", nodeLabel(n))
	}
	data, err := unpack(blob)
	if err != nil {
		return nil, fault.New(fault.Corrupt, "get inventory", "%w", err)
	}
	return &farrierv1.GetInventoryResponse{InventoryJson: data, At: stamp(at)}, nil
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

func nodeLabel(n *node.Node) string {
	if n.Name != "" {
		return n.Name
	}
	return string(n.ID)
}
