package pid1

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/farrier-project/farrier/ramdisk-agent/cmdline"
)

// Order is the file that lists the modules to load, one path a line, relative to its directory.
const Order = "/modules/order"

// Prepare loads the modules, waits for entropy and brings up the network. It asks for an address until it has one.
func Prepare(ctx context.Context, params cmdline.Params, log *slog.Logger) error {
	n, failed := loadModules(Order, finit, log)
	log.Info("modules loaded", "loaded", n, "failed", failed)
	waitEntropy(ctx, log)
	if params.IPDone {
		return nil
	}
	return network(ctx, params.BootIf, log)
}

// loadModules loads what the order file lists. A module that its hardware is not there for (ENODEV), or that is
// loaded or built in already (EEXIST), is no failure.
func loadModules(order string, load func(path string) error, log *slog.Logger) (loaded, failed int) {
	f, err := os.Open(order)
	if err != nil {
		log.Info("no modules in this ramdisk", "err", err)
		return 0, 0
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		name := strings.TrimSpace(s.Text())
		if name == "" || strings.Contains(name, "..") {
			continue
		}
		switch err := load(filepath.Join(filepath.Dir(order), name)); {
		case err == nil:
			loaded++
		case errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENODEV):
		case errors.Is(err, unix.ENOENT) && strings.HasPrefix(name, "hv_"): // Hyper-V's drivers, elsewhere: a symbol of its bus is not there
		default:
			failed++
			log.Warn("module not loaded", "module", name, "err", err)
		}
	}
	return loaded, failed
}

func finit(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// waitEntropy says so when the kernel has no random numbers yet, because everything that follows would just hang. A
// machine without a hardware generator may take long.
func waitEntropy(ctx context.Context, log *slog.Logger) {
	var b [8]byte
	for i := 0; ; i++ {
		if _, err := unix.Getrandom(b[:], unix.GRND_NONBLOCK); !errors.Is(err, unix.EAGAIN) {
			return
		}
		if i%50 == 0 {
			log.Warn("waiting for the kernel's random numbers: give the machine a generator (RDRAND, virtio-rng)")
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}
