package httpboot

import (
	"bytes"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/farrier-project/farrier/agent/boot"
	"github.com/farrier-project/farrier/agent/bootenv"
	"github.com/farrier-project/farrier/pkg/clock"
)

// Config is what a Handler needs. Table, HTTP, Kernel and Ramdisk are required.
type Config struct {
	Table    *bootenv.Table
	HTTP     string            // base URL of this server, as machines reach it
	Kernel   string            // path of the kernel file
	Ramdisk  string            // path of the ramdisk file
	Programs map[string][]byte // boot programs by name; the map that tftp has
	Extra    []boot.Arg        // kernel arguments of this rack
	// Agents lists the ramdisk addresses of the group, this agent first. It is asked for each script.
	Agents func() []boot.Agent
	// Images serves /images/; nil: none are served. It is the image cache.
	Images http.Handler
	Clock  clock.Clock // default clock.System
	Log    *slog.Logger
	// OnBoot is told when the script of a claimed attempt is asked for: the machine was restarted. Optional; it must not
	// block.
	OnBoot func(bootID string)
}

// Handler is the boot server. It is safe for concurrent use.
type Handler struct {
	cfg Config
	mux *http.ServeMux
}

// New makes the handler.
func New(cfg Config) *Handler {
	if cfg.Clock == nil {
		cfg.Clock = clock.System{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Agents == nil {
		cfg.Agents = func() []boot.Agent { return nil }
	}
	h := &Handler{cfg: cfg, mux: http.NewServeMux()}
	h.mux.HandleFunc("GET "+boot.PathUnknown+"/ipxe", h.unknown)
	h.mux.HandleFunc("GET "+boot.PathBoot+"{id}/ipxe", h.script)
	h.mux.HandleFunc("GET "+boot.PathBoot+"{id}/kernel", func(w http.ResponseWriter, r *http.Request) { h.file(w, r, cfg.Kernel) })
	h.mux.HandleFunc("GET "+boot.PathBoot+"{id}/ramdisk", func(w http.ResponseWriter, r *http.Request) { h.file(w, r, cfg.Ramdisk) })
	h.mux.HandleFunc("GET "+boot.PathPrograms+"{name}", h.program)
	if cfg.Images != nil {
		h.mux.Handle("GET "+boot.PathImages, cfg.Images)
	}
	return h
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	h.mux.ServeHTTP(w, r)
}

// attempt finds the machine of the boot id in the path, or answers why there is none.
func (h *Handler) attempt(w http.ResponseWriter, r *http.Request) *bootenv.Machine {
	m, standing := h.cfg.Table.ByBoot(r.PathValue("id"), h.cfg.Clock.Boottime())
	switch standing {
	case bootenv.Open:
		return m
	case bootenv.Over:
		http.Error(w, "This boot attempt is over: it expired or was closed. Start the machine through Farrier to get a new one.", http.StatusGone)
	default:
		http.Error(w, "This agent has no such boot attempt. Its node may be with another agent of the group.", http.StatusNotFound)
	}
	h.cfg.Log.Info("http boot: refused", "client", r.RemoteAddr, "path", r.URL.Path, "over", standing == bootenv.Over)
	return nil
}

func (h *Handler) script(w http.ResponseWriter, r *http.Request) {
	again := r.URL.Query().Has(boot.QueryAgain)
	if again && h.mayLeave(r) {
		h.cfg.Log.Info("http boot: the wait is over", "path", r.URL.Path, "client", r.RemoteAddr)
		serveScript(w, boot.LeaveScript())
		return
	}
	m := h.attempt(w, r)
	if m == nil {
		return
	}
	mac, ok := h.macOf(m, r)
	if !ok {
		http.Error(w, "The machine with this address may not use this boot attempt.", http.StatusForbidden)
		return
	}
	text, err := h.scriptFor(m, mac, again)
	if err != nil {
		h.cfg.Log.Error("http boot: no script", "node", m.Node, "err", err)
		http.Error(w, "The agent cannot make the boot script; its log says why.", http.StatusInternalServerError)
		return
	}
	level := slog.LevelInfo
	if again {
		level = slog.LevelDebug
	}
	h.cfg.Log.Log(r.Context(), level, "http boot: script", "node", m.Node, "mac", mac.String(), "client", r.RemoteAddr, "claimed", m.Boot.Claimed)
	serveScript(w, text)
}

// mayLeave tells whether the boot attempt in the path is over and no other is open for the machine that waits: if one is,
// the machine is about to be restarted.
func (h *Handler) mayLeave(r *http.Request) bool {
	mac, err := bootenv.ParseMAC(r.URL.Query().Get("mac"))
	_, standing := h.cfg.Table.ByBoot(r.PathValue("id"), h.cfg.Clock.Boottime())
	m, known := h.cfg.Table.ByMAC(mac)
	return err == nil && standing == bootenv.Over && known && m.Boot == nil
}

func (h *Handler) macOf(m *bootenv.Machine, r *http.Request) (bootenv.MAC, bool) {
	text := r.URL.Query().Get("mac")
	if text == "" {
		p, ok := m.BootPort()
		return p.MAC, ok
	}
	mac, err := bootenv.ParseMAC(text)
	if err != nil {
		return mac, false
	}
	_, ok := m.Port(mac)
	return mac, ok
}

func (h *Handler) scriptFor(m *bootenv.Machine, mac bootenv.MAC, again bool) (string, error) {
	if m.Boot.Claimed {
		if h.cfg.OnBoot != nil && !again {
			h.cfg.OnBoot(m.Boot.ID)
		}
		return boot.WaitScript(h.cfg.HTTP, m.Boot.ID, mac)
	}
	return boot.Launch{HTTP: h.cfg.HTTP, BootID: m.Boot.ID, Secret: m.Boot.Secret, MAC: mac, Agents: h.cfg.Agents(), Extra: h.cfg.Extra}.Script()
}

func (h *Handler) unknown(w http.ResponseWriter, r *http.Request) {
	mac, err := bootenv.ParseMAC(r.URL.Query().Get("mac"))
	if err != nil {
		http.Error(w, "The query needs mac=52-54-00-12-34-56.", http.StatusBadRequest)
		return
	}
	serveScript(w, boot.UnknownScript(mac))
}

func serveScript(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte(text))
}

func (h *Handler) program(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	b, ok := h.cfg.Programs[name]
	if !ok {
		http.Error(w, "There is no such boot program.", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/efi") // UEFI HTTP Boot looks at it when the name says nothing
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
}

func (h *Handler) file(w http.ResponseWriter, r *http.Request, path string) {
	if h.attempt(w, r) == nil {
		return
	}
	f, err := os.Open(path)
	if err != nil {
		h.cfg.Log.Error("http boot: boot file is missing", "err", err)
		http.Error(w, "The agent's kernel or ramdisk file is missing; its log says which.", http.StatusServiceUnavailable)
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		h.cfg.Log.Error("http boot: not a file", "path", path, "err", err)
		http.Error(w, "The agent's kernel or ramdisk file cannot be read.", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", st.ModTime(), f)
}
