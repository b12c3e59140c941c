package fleet

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/message"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/state"
)

// ListNodes implements NodeService.
func (s *Service) ListNodes(ctx context.Context, req *farrierv1.ListNodesRequest) (*farrierv1.ListNodesResponse, error) {
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	for _, text := range req.GetFilter().GetProvisionState() {
		if _, ok := lifecycle.ParseState(text); !ok {
			return nil, refusal.Invalid("filter.provision_state", "there is no provision state %q", refusal.Clip(text)).WithHelp("the states are %s", stateNames())
		}
	}
	order, err := parseOrder(req.GetOrderBy())
	if err != nil {
		return nil, err
	}
	after, err := parsePage(req.GetPageToken(), order)
	if err != nil {
		return nil, err
	}
	v, err := s.cfg.Desk.Read(ctx, req.GetStale())
	if err != nil {
		return nil, err
	}
	match := newMatcher(req.GetFilter())
	page := pick(v, match, order, after, size)
	out := &farrierv1.ListNodesResponse{Index: v.Index(), Total: page.total}
	depth := message.Brief
	if slices.ContainsFunc(req.GetMask().GetPaths(), func(p string) bool { return p == "flow" || p == "ports" || strings.HasPrefix(p, "flow.") }) {
		depth = message.Whole
	}
	for _, n := range page.nodes {
		item := s.out.Node(v, n, depth)
		if err := message.Keep(item, req.GetMask()); err != nil {
			return nil, err
		}
		out.Nodes = append(out.Nodes, item)
	}
	if page.more {
		out.NextPageToken = order.token(page.nodes[len(page.nodes)-1])
	}
	return out, nil
}

func stateNames() string {
	var names []string
	for _, s := range lifecycle.States() {
		names = append(names, s.String())
	}
	return strings.Join(names, ", ")
}

// Bounds of a page.
const (
	maxPageSize = 1000
	defaultPage = 100
)

func pageSize(asked int32) (int, error) {
	switch {
	case asked == 0:
		return defaultPage, nil
	case asked < 0 || asked > maxPageSize:
		return 0, refusal.Invalid("page_size", "%d is not between 1 and %d", asked, maxPageSize)
	default:
		return int(asked), nil
	}
}

// order is how a list is sorted: by a key, then by id.
type order struct {
	by   string
	desc bool
}

func parseOrder(text string) (order, error) {
	o := order{by: "id"}
	if text == "" {
		return o, nil
	}
	words := strings.Fields(text)
	if len(words) > 2 || len(words) == 2 && words[1] != "desc" && words[1] != "asc" {
		return o, refusal.Invalid("order_by", "%q is not a field and perhaps desc", refusal.Clip(text))
	}
	o.by, o.desc = words[0], len(words) == 2 && words[1] == "desc"
	switch o.by {
	case "id", "name", "provision_state", "updated_at":
		return o, nil
	}
	return o, refusal.Invalid("order_by", "nodes are not sorted by %q", refusal.Clip(o.by)).
		WithHelp("sort by id, name, provision_state or updated_at")
}

func (o order) key(n *node.Node) string {
	switch o.by {
	case "name":
		return n.Name
	case "provision_state":
		return n.Provision.String()
	case "updated_at":
		return n.UpdatedAt.UTC().Format("20060102T150405.000000000")
	default:
		return string(n.ID)
	}
}

func (o order) compare(keyA string, idA node.ID, keyB string, idB node.ID) int {
	c := cmp.Or(cmp.Compare(keyA, keyB), cmp.Compare(idA, idB))
	if o.desc {
		return -c
	}
	return c
}

// cursor is the last node of the page before.
type cursor struct {
	By   string  `json:"b"`
	Desc bool    `json:"d,omitempty"`
	Key  string  `json:"k"`
	ID   node.ID `json:"i"`
}

func (o order) token(n *node.Node) string {
	data, err := json.Marshal(cursor{By: o.by, Desc: o.desc, Key: o.key(n), ID: n.ID})
	if err != nil {
		panic("fleet: a cursor always marshals: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

func parsePage(token string, o order) (*cursor, error) {
	if token == "" {
		return nil, nil
	}
	var c cursor
	data, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(token) > 2048 || json.Unmarshal(data, &c) != nil {
		return nil, refusal.Invalid("page_token", "it is not one that a list returned")
	}
	if c.By != o.by || c.Desc != o.desc {
		return nil, refusal.Invalid("page_token", "it belongs to a list in another order")
	}
	return &c, nil
}

type page struct {
	nodes []*node.Node
	more  bool
	total uint64
}

// pick answers one page and how many nodes match.
func pick(v *state.View, match matcher, o order, after *cursor, size int) page {
	if o.by == "id" && !o.desc {
		return pickByID(v, match, after, size)
	}
	type item struct {
		key string
		n   *node.Node
	}
	var all []item
	v.Nodes("", func(n *node.Node) bool {
		if match.ok(n) {
			all = append(all, item{o.key(n), n})
		}
		return true
	})
	slices.SortFunc(all, func(a, b item) int { return o.compare(a.key, a.n.ID, b.key, b.n.ID) })
	p := page{total: uint64(len(all))}
	for _, x := range all {
		if after != nil && o.compare(x.key, x.n.ID, after.Key, after.ID) <= 0 {
			continue
		}
		if len(p.nodes) == size {
			p.more = true
			break
		}
		p.nodes = append(p.nodes, x.n)
	}
	return p
}

func pickByID(v *state.View, match matcher, after *cursor, size int) page {
	var p page
	var from node.ID
	if after != nil {
		from = after.ID
	}
	add := func(n *node.Node) bool {
		if !match.ok(n) {
			return true
		}
		p.more = len(p.nodes) == size
		if !p.more {
			p.nodes = append(p.nodes, n)
		}
		return !p.more
	}
	v.Nodes(from, add)
	if match == nil {
		p.total = uint64(v.NodeCount())
		return p
	}
	v.Nodes("", func(n *node.Node) bool {
		if match.ok(n) {
			p.total++
		}
		return true
	})
	return p
}

// matcher tells whether a node passes the filter; nil passes all.
type matcher func(*node.Node) bool

func (m matcher) ok(n *node.Node) bool { return m == nil || m(n) }

func newMatcher(f *farrierv1.NodeFilter) matcher {
	var tests []func(*node.Node) bool
	equal := func(want string, get func(*node.Node) string) {
		if want != "" {
			tests = append(tests, func(n *node.Node) bool { return get(n) == want })
		}
	}
	if states := f.GetProvisionState(); len(states) > 0 {
		tests = append(tests, func(n *node.Node) bool { return slices.Contains(states, n.Provision.String()) })
	}
	equal(f.GetDriver(), func(n *node.Node) string { return n.Driver })
	equal(f.GetGroup(), func(n *node.Node) string { return n.Group })
	equal(f.GetAgent(), func(n *node.Node) string { return n.Owner })
	equal(f.GetResourceClass(), func(n *node.Node) string { return n.ResourceClass })
	equal(f.GetPowerState(), func(n *node.Node) string { return n.Power.String() })
	equal(f.GetFault(), func(n *node.Node) string { return n.Fault })
	if f != nil && f.Maintenance != nil {
		tests = append(tests, func(n *node.Node) bool { return n.Maintenance == f.GetMaintenance() })
	}
	if part := f.GetNameContains(); part != "" {
		tests = append(tests, func(n *node.Node) bool { return strings.Contains(n.Name, part) })
	}
	if len(tests) == 0 {
		return nil
	}
	return func(n *node.Node) bool {
		for _, t := range tests {
			if !t(n) {
				return false
			}
		}
		return true
	}
}
