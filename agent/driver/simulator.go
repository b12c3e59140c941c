package driver

import (
	"bytes"
	"container/heap"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/farrier-project/farrier/agent/work"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Contact is the first contact of a ramdisk under a boot attempt.
type Contact struct {
	Node, BootID, KeyHash string
	Flow                  uint64
}

// Simulator plays the ramdisk of machines that are not there. driver_info, all optional:
//
//	fake_boot_delay     from power on to first contact: "2s"
//	fake_step_delay     of each ramdisk step
//	fake_boot_fault     "silent": the ramdisk never makes contact
//	fake_step_fault     name of a ramdisk step that fails, "write_image"
//	fake_disk_bytes     size of its one disk, for the facts; default 16 GiB
//
// It is safe for concurrent use; Run must be running for anything to happen.
type Simulator struct {
	finished func(...work.Outcome)
	contact  func(Contact)
	wake     chan struct{}

	mu     sync.Mutex // guards all fields below
	due    alarms
	boots  map[string]*alarm // contact to come, by node
	steps  map[work.Ref]*alarm
	booted map[string]string // boot id of the last contact, by node
}

type alarm struct {
	at      time.Time
	index   int // in the heap; -1 when it went off or was called off
	contact *Contact
	outcome *work.Outcome
}

// NewSimulator makes a Simulator. The functions are called from Run, one at a time.
func NewSimulator(finished func(...work.Outcome), contact func(Contact)) *Simulator {
	return &Simulator{
		finished: finished, contact: contact, wake: make(chan struct{}, 1),
		boots: make(map[string]*alarm), steps: make(map[work.Ref]*alarm), booted: make(map[string]string),
	}
}

// PowerOn says that the machine starts and finds the boot attempt. A repeat for the same attempt changes nothing.
// The contact comes atLeast later, or after fake_boot_delay if that is longer.
func (s *Simulator) PowerOn(c Contact, info map[string]string, atLeast time.Duration) {
	if info["fake_boot_fault"] == "silent" || c.BootID == "" {
		return
	}
	key := sha256.Sum256([]byte("simulated ramdisk " + c.BootID))
	c.KeyHash = hex.EncodeToString(key[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.booted[c.Node] == c.BootID || s.boots[c.Node] != nil && s.boots[c.Node].contact.BootID == c.BootID {
		return
	}
	s.callOff(s.boots[c.Node])
	s.boots[c.Node] = s.set(max(delay(info, "fake_boot_delay"), atLeast), &alarm{contact: &c})
}

// PowerOff says that the machine stops: what it was about to do it does not.
func (s *Simulator) PowerOff(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.callOff(s.boots[node])
	delete(s.boots, node)
	for ref, a := range s.steps {
		if ref.Node == node {
			s.callOff(a)
			delete(s.steps, ref)
		}
	}
}

// Forget drops a node.
func (s *Simulator) Forget(node string) {
	s.PowerOff(node)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.booted, node)
}

// Deliver runs a ramdisk step. A repeat of one that runs changes nothing.
func (s *Simulator) Deliver(info map[string]string, o work.Order) {
	out := simulate(info, o)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.steps[o.Ref] == nil {
		s.steps[o.Ref] = s.set(delay(info, "fake_step_delay"), &alarm{outcome: &out})
	}
}

// Cancel stops a step.
func (s *Simulator) Cancel(o work.Order, reason string) {
	out := work.Failed(o, fault.New(fault.Aborted, o.Full(), "cancelled: %s", reason))
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.steps[o.Ref]; a != nil {
		s.callOff(a)
		s.steps[o.Ref] = s.set(0, &alarm{outcome: &out})
	}
}

// Run lets alarms go off until ctx ends.
func (s *Simulator) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		contacts, outcomes, next := s.take(time.Now())
		for _, c := range contacts {
			s.contact(c)
		}
		if len(outcomes) > 0 {
			s.finished(outcomes...)
		}
		timer.Reset(next)
		select {
		case <-timer.C:
		case <-s.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take removes what is due and tells how long the next may take.
func (s *Simulator) take(now time.Time) (contacts []Contact, outcomes []work.Outcome, next time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.due) > 0 && !s.due[0].at.After(now) {
		a := heap.Pop(&s.due).(*alarm)
		if a.contact != nil {
			delete(s.boots, a.contact.Node)
			s.booted[a.contact.Node] = a.contact.BootID
			contacts = append(contacts, *a.contact)
		} else {
			delete(s.steps, a.outcome.Ref)
			outcomes = append(outcomes, *a.outcome)
		}
	}
	if len(s.due) == 0 {
		return contacts, outcomes, time.Hour
	}
	return contacts, outcomes, s.due[0].at.Sub(now)
}

func (s *Simulator) set(in time.Duration, a *alarm) *alarm {
	a.at = time.Now().Add(in)
	heap.Push(&s.due, a)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return a
}

func (s *Simulator) callOff(a *alarm) {
	if a != nil && a.index >= 0 {
		heap.Remove(&s.due, a.index)
	}
}

// maxDelay bounds what driver_info may ask for.
const maxDelay = time.Hour

func delay(info map[string]string, key string) time.Duration {
	d, err := time.ParseDuration(info[key])
	if err != nil || d < 0 {
		return 0
	}
	return min(d, maxDelay)
}

const simulatedDisk = "simulated-disk-0"

// simulate is the outcome that a ramdisk would report of the step.
func simulate(info map[string]string, o work.Order) work.Outcome {
	if info["fake_step_fault"] == o.Name {
		return work.Failed(o, fault.New(fault.Internal, o.Full(), "simulated fault (fake_step_fault)"))
	}
	bytes := info["fake_disk_bytes"]
	if bytes == "" {
		bytes = "17179869184"
	}
	out := work.Done(o, map[string]string{"simulated": "true"})
	switch o.Name {
	case "inventory":
		out.Inventory = simulatedInventory(o.Node, bytes)
	case "erase_devices_metadata":
		out.Facts["method"], out.Facts["disks"], out.Facts["sampled"] = "metadata", simulatedDisk, "0"
	case "erase_devices":
		method := o.Args["method"]
		if method == "" || method == "auto" {
			method = "discard"
		}
		out.Facts["method"], out.Facts["disks"], out.Facts["sampled"] = method, simulatedDisk, "1024"
	case "select_disk":
		out.Facts["disk_id"], out.Facts["disk_name"], out.Facts["disk_bytes"] = simulatedDisk, "sda", bytes
	case "write_image":
		out.Facts["digest"], out.Facts["bytes"] = o.Args["sha256"], "0"
		out.Facts["written"], out.Facts["skipped"] = "0", "0"
	}
	return out
}

func simulatedInventory(node, diskBytes string) []byte {
	doc, err := json.Marshal(map[string]any{
		"simulated": true,
		"system":    map[string]string{"uuid": node, "manufacturer": "Farrier", "product": "simulated machine"},
		"disks":     []map[string]string{{"id": simulatedDisk, "name": "sda", "bytes": diskBytes}},
	})
	if err != nil {
		return nil // plain strings always marshal
	}
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return nil
	}
	if _, err := w.Write(doc); err != nil || w.Close() != nil {
		return nil
	}
	return buf.Bytes()
}

type alarms []*alarm

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].at.Before(a[j].at) }
func (a alarms) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].index, a[j].index = i, j
}

// Push implements heap.Interface.
func (a *alarms) Push(x any) {
	al := x.(*alarm)
	al.index = len(*a)
	*a = append(*a, al)
}

// Pop implements heap.Interface.
func (a *alarms) Pop() any {
	old := *a
	al := old[len(old)-1]
	al.index = -1
	old[len(old)-1] = nil
	*a = old[:len(old)-1]
	return al
}
