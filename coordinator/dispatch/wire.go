package dispatch

import (
	"encoding/hex"
	"encoding/json"
	"maps"

	"google.golang.org/protobuf/types/known/durationpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/plan"
)

// assignMessage unseals what the agent needs. A credential that cannot be opened is left out and logged: the
// driver then refuses the node with the field's name.
func (d *Dispatch) assignMessage(a *plan.Assignment) *farrierv1.CoordinatorMessage {
	n := a.Node
	info := n.DriverInfo
	if len(n.Secrets) > 0 {
		info = maps.Clone(n.DriverInfo)
		if info == nil {
			info = map[string]string{}
		}
		for field, plain := range d.unseal(n.ID, n.Secrets) {
			info[field] = plain
		}
	}
	m := &farrierv1.Assign{
		Node: string(n.ID), Name: n.Name, Driver: n.Driver, DriverInfo: info, Token: uint64(a.Token), Epoch: a.Epoch,
		PowerState: n.Power.String(), ProvisionState: n.Provision.String(),
		BmcSessions: a.BMCSessions, PowerWatch: n.PowerWatch().String(),
	}
	for _, p := range a.Ports {
		m.Ports = append(m.Ports, &farrierv1.AssignedPort{Address: p.Address, Ip: p.IP, PxeEnabled: p.PXEEnabled})
	}
	if b := a.Boot; b != nil {
		m.Boot = &farrierv1.BootAttempt{
			BootId: b.ID, Secret: d.bootSecret(b.ID), KeyHash: b.KeyHash, ExpiresIn: durationpb.New(b.ExpiresIn),
			Flow: uint64(b.Flow), Ramdisk: "deploy", SystemUuid: b.SystemUUID, Serial: b.Serial,
		}
	}
	return &farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Assign{Assign: m}}
}

// bootSecret is what the ramdisk of a boot attempt proves itself with. Any leader derives the same.
func (d *Dispatch) bootSecret(boot string) string {
	sum := d.cfg.Keyring.Derive("boot", []byte(boot))
	return hex.EncodeToString(sum[:])
}

func (d *Dispatch) unseal(id node.ID, boxes map[string]node.Sealed) map[string]string {
	plain := make(map[string]string, len(boxes))
	for field, s := range boxes {
		text, err := d.cfg.Keyring.Open(s.KeyID, s.Box, "node/"+string(id)+"/"+field)
		if err != nil {
			d.cfg.Log.Error("a sealed field cannot be opened: is this the cluster's keyring?", "node", id, "field", field, "err", err)
			continue
		}
		plain[field] = string(text)
	}
	return plain
}

func (d *Dispatch) orderMessage(w *plan.Work, key orderKey) *farrierv1.CoordinatorMessage {
	o := &farrierv1.Order{
		Ref: key.ref(w.Node), Interface: w.Interface, Step: w.Name, Class: w.Class.String(),
		Executor: w.Executor.String(), Args: w.Args, BootId: w.Boot, Resumed: w.Resumed,
		CallDeadline: durationpb.New(w.CallDeadline),
	}
	if w.Deadline > 0 {
		o.Deadline = durationpb.New(w.Deadline)
	}
	if len(w.Secrets)+len(w.Clear) > 0 {
		secrets := d.unseal(w.Node, w.Secrets)
		maps.Copy(secrets, w.Clear)
		text, err := json.Marshal(secrets)
		if err != nil {
			panic("dispatch: a map of texts has no JSON form: " + err.Error())
		}
		o.SecretArgs = text
	}
	return &farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Order{Order: o}}
}
