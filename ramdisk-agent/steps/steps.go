package steps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/ramdisk-agent/disk"
	"github.com/farrier-project/farrier/ramdisk-agent/erase"
	"github.com/farrier-project/farrier/ramdisk-agent/progress"
	"github.com/farrier-project/farrier/ramdisk-agent/rootdevice"
	"github.com/farrier-project/farrier/ramdisk-agent/work"
)

const mib = 1 << 20

// Limits.
const (
	MaxInventory = 128 << 10 // bytes of a compressed inventory
	maxWorkers   = 16
	maxError     = 2048 // bytes of an error's text
)

// Images is where images come from: the agents of the group.
type Images interface {
	// Manifest is the list of an image's chunks.
	Manifest(ctx context.Context, sha256 string) (Manifest, error)
	// Open reads length bytes (-1: to the end) of the image file from offset, from the current agent. A reader that
	// fails has already turned to the next agent, so that opening again goes on there.
	Open(ctx context.Context, path string, offset, length int64) (io.ReadCloser, error)
	// Distrust turns to the next agent because the current one sent wrong bytes.
	Distrust(reason error)
}

// Config is what steps need. Zero values of the optional fields are the defaults.
type Config struct {
	Host      disk.Host
	Images    Images
	Inventory func() ([]byte, error) // compressed JSON, at most MaxInventory bytes
	Log       *slog.Logger
	Workers   int           // hashing and writing; default one per core, at most 16
	Stall     time.Duration // how long an image may come to a stop, over all agents, before the step gives up; default 30 min
	Simulated bool          // facts say so
}

// Runner runs steps, one at a time. Between runs it remembers which chunks of the last image are in place.
type Runner struct {
	cfg Config

	mu    sync.Mutex // guards image
	image *imageRun
}

// New makes a Runner.
func New(cfg Config) *Runner {
	if cfg.Workers <= 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	cfg.Workers = min(cfg.Workers, maxWorkers)
	if cfg.Stall <= 0 {
		cfg.Stall = 30 * time.Minute
	}
	return &Runner{cfg: cfg}
}

// result is what a step found; a nil error with it is success.
type result struct {
	facts     map[string]string
	inventory []byte
	then      work.End
}

// Run runs an order to its end, or until ctx ends. It never panics.
func (r *Runner) Run(ctx context.Context, o work.Order, report progress.Report) work.Outcome {
	res, err := r.guarded(ctx, o, report)
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			err = fault.New(fault.Aborted, "run step", "cancelled")
		}
		return failed(o, err)
	}
	if r.cfg.Simulated && res.facts != nil {
		res.facts["simulated"] = "true"
	}
	return work.Outcome{Ref: o.Ref, OK: true, Facts: res.facts, Inventory: res.inventory, Then: res.then}
}

func failed(o work.Order, err error) work.Outcome {
	text := fault.Summary(err)
	if len(text) > maxError {
		text = text[:maxError]
	}
	kind := fault.KindOf(err)
	return work.Outcome{Ref: o.Ref, Error: text, Kind: kind.String(),
		Retryable: kind == fault.Unavailable || kind == fault.Timeout || kind == fault.Busy}
}

func (r *Runner) guarded(ctx context.Context, o work.Order, report progress.Report) (res result, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.cfg.Log.Error("step panicked", "step", o.Step, "panic", p, "stack", string(debug.Stack()))
			err = fault.New(fault.Internal, "run step", "panic: %v", p)
		}
	}()
	_, name, dotted := strings.Cut(o.Step, ".")
	if !dotted {
		name = o.Step
	}
	switch name {
	case "inventory":
		return r.inventory()
	case "select_disk":
		return r.selectDisk(ctx, o.Args)
	case "erase_devices_metadata":
		facts, err := r.eraser().Metadata(ctx, o.Args)
		return result{facts: facts}, err
	case "erase_devices":
		facts, err := r.eraser().Devices(ctx, o.Args, report)
		return result{facts: facts}, err
	case "write_image":
		return r.writeImage(ctx, o, report)
	case "write_config_drive":
		return r.writeConfigDrive(o)
	case "tear_down_agent", "power_off":
		return result{then: work.PowerOff}, nil
	case "reboot":
		return result{then: work.Reboot}, nil
	default:
		return result{}, fault.New(fault.Unsupported, "run step", "this ramdisk has no step %q", o.Step).
			WithHelp("boot a ramdisk of the agent's version")
	}
}

func (r *Runner) eraser() *erase.Eraser { return &erase.Eraser{Host: r.cfg.Host, Log: r.cfg.Log} }

func (r *Runner) inventory() (result, error) {
	b, err := r.cfg.Inventory()
	if err != nil {
		return result{}, fault.Wrap("take inventory", err)
	}
	if len(b) > MaxInventory {
		return result{}, fault.New(fault.TooLarge, "take inventory", "%d bytes compressed, more than %d", len(b), MaxInventory)
	}
	return result{facts: map[string]string{"inventory_bytes": fmt.Sprint(len(b))}, inventory: b}, nil
}

// secrets reads an order's secret arguments.
func secrets(o work.Order) (map[string]string, error) {
	out := map[string]string{}
	if len(o.Secret) == 0 {
		return out, nil
	}
	if err := json.Unmarshal(o.Secret, &out); err != nil {
		return nil, fault.New(fault.Invalid, "read secret arguments", "not a JSON object of strings") // its text may hold a secret
	}
	return out, nil
}

// selectDisk answers the one disk that matches all hints ("hint.<name>" arguments) and that holds the image (sha256) and
// min_bytes.
func (r *Runner) selectDisk(ctx context.Context, args map[string]string) (result, error) {
	want, err := rootdevice.Read(args)
	if err != nil {
		return result{}, err
	}
	image := int64(0)
	if sha := args["sha256"]; sha != "" {
		man, err := r.cfg.Images.Manifest(ctx, sha)
		if err != nil {
			return result{}, fault.Wrap("get manifest", err)
		}
		image = man.ContentSize
	}
	disks, err := r.cfg.Host.Disks()
	if err != nil {
		return result{}, err
	}
	d, err := want.Choose(disks, image)
	if err != nil {
		return result{}, err
	}
	return result{facts: map[string]string{"disk_id": d.ID, "disk_name": d.Name, "disk_bytes": strconv.FormatInt(d.Size, 10)}}, nil
}
