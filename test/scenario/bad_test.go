package scenario

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/pkg/fault"
	ramdisk "github.com/farrier-project/farrier/ramdisk-agent/machine"
	"github.com/farrier-project/farrier/test/lab/machine"
	"github.com/farrier-project/farrier/test/lab/site"
)

// The machines of TestOperator.
const (
	plain = iota // one disk
	twin         // two disks of the same size and model
	small        // a disk on which the image has no room
)

const smallDisk = 128 << 20 // bytes

// TestOperator is a day of an operator at one site: everything that the command line and the API are asked for, wrong and
// right. The parts stand in this order: the last ones take agents and coordinators away.
func TestOperator(t *testing.T) {
	k := office(t)
	for _, m := range k.Machines {
		if m != k.Machines[plain] {
			k.enrol(m)
		}
	}
	for _, part := range []struct {
		name string
		run  func(k *kit)
	}{
		{"credentials", (*kit).credentials},
		{"requests", (*kit).requests},
		{"tables", (*kit).tables},
		{"locks", (*kit).locks},
		{"images", (*kit).images},
		{"disks", (*kit).disks},
		{"joining", (*kit).joining},
		{"tail", (*kit).tail},
		{"no agent", (*kit).noAgent},
		{"no quorum", (*kit).noQuorum},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(&kit{Site: k.Site, t: t, dir: k.dir}) })
	}
}

// office brings up the site.
func office(t *testing.T) *kit {
	t.Helper()
	k := startSite(t, site.Config{Machines: 3, Machine: func(i int, cfg *machine.Config) {
		cfg.DiskBytes = diskBytes
		cfg.Disk = ramdisk.Disk{WriteLog: filepath.Join(cfg.Dir, "writes.log")}
		switch i {
		case twin:
			cfg.MoreDisks = []ramdisk.Disk{{Path: "more.raw", SizeBytes: diskBytes, Serial: "TWIN", Vendor: "Farrier", Model: "Software disk", WriteLog: "more.log"}}
		case small:
			cfg.DiskBytes = smallDisk
		}
	}})
	return k
}

// wrong is one request that must be refused, as the API and as the command line get it.
type wrong struct {
	name   string
	call   func(ctx context.Context) error // nil: the command line refuses it by itself
	args   []string                        // nil: the command line cannot ask for it
	kind   fault.Kind
	status int
	says   []string // in the message of both
	detail any      // what the API's error carries for programs; of a *fault.FieldDetail and the like
}

// refuse sends the request both ways and checks that nothing came of it.
func (k *kit) refuse(w wrong) {
	k.t.Helper()
	before := k.picture()
	if w.call != nil {
		k.check(w, w.call(k.ctx()))
	}
	if w.args != nil {
		k.farrier(w.args...).refused(k.t, w.status, w.says...)
	}
	if after := k.picture(); !proto.Equal(before, after) {
		k.t.Errorf("something changed:\n%v\n%v", before, after)
	}
}

// check looks at the API's error: one detail with kind, advice and what programs need.
func (k *kit) check(w wrong, err error) {
	k.t.Helper()
	var ce *connect.Error
	if !errors.As(err, &ce) || len(ce.Details()) != 1 {
		k.t.Errorf("not an error with one detail: %v", err)
		return
	}
	f := client.Fault(err)
	if f.Kind != w.kind {
		k.t.Errorf("kind %v instead of %v: %v", f.Kind, w.kind, f)
	}
	if f.Help == "" {
		k.t.Errorf("no advice in %v", f)
	}
	for _, text := range w.says {
		if !contains(f, text) {
			k.t.Errorf("%q (%s) does not say %q", f.Error(), f.Help, text)
		}
	}
	switch want := w.detail.(type) {
	case *fault.FieldDetail:
		if got, ok := f.Detail.(*fault.FieldDetail); !ok || *got != *want {
			k.t.Errorf("detail %+v instead of field %s", f.Detail, want.Field)
		}
	case *fault.StateDetail:
		if got, ok := f.Detail.(*fault.StateDetail); !ok || !equal(got.LegalVerbs, want.LegalVerbs) {
			k.t.Errorf("detail %+v instead of verbs %v", f.Detail, want.LegalVerbs)
		}
	case *fault.LockDetail:
		got, ok := f.Detail.(*fault.LockDetail)
		if !ok || got.Token != want.Token || got.Purpose != want.Purpose || got.Holder == "" || got.SinceUnixNano == 0 {
			k.t.Errorf("detail %+v instead of %+v", f.Detail, want)
		}
	}
}

// picture is all that a refused request must leave alone.
func (k *kit) picture() *farrierv1.ListNodesResponse {
	k.t.Helper()
	res, err := k.Client.Nodes.ListNodes(k.ctx(), &farrierv1.ListNodesRequest{OrderBy: "name"})
	if err != nil {
		k.t.Fatal(client.Fault(err))
	}
	res.Index = 0
	return res
}

func (k *kit) node(name string) *farrierv1.Node {
	k.t.Helper()
	res, err := k.Client.Nodes.GetNode(k.ctx(), &farrierv1.GetNodeRequest{Node: name})
	if err != nil {
		k.t.Fatal(client.Fault(err))
	}
	return res.GetNode()
}

// atRest checks that nobody works on the node any more.
func (k *kit) atRest(name string) *farrierv1.Node {
	k.t.Helper()
	n := k.node(name)
	if !client.Settled(n) || n.GetLock().GetToken() != 0 || n.GetMaintenance() {
		k.t.Errorf("%s is not at rest: %s, lock %v, maintenance %v", name, n.GetProvisionState(), n.GetLock(), n.GetMaintenance())
	}
	return n
}
