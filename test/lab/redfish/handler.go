package redfish

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/farrier-project/farrier/test/lab"
)

const (
	root       = "/redfish/v1"
	systemPath = root + "/Systems/1"
	resetPath  = systemPath + "/Actions/ComputerSystem.Reset"
)

var resetTypes = []string{"On", "ForceOff", "GracefulShutdown", "ForceRestart", "PowerCycle"} // read-only

type object map[string]any

func link(path string) object { return object{"@odata.id": path} }

func (b *BMC) handler() http.Handler {
	mux := http.NewServeMux()
	get := func(path string, body func() object) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { reply(w, http.StatusOK, body()) })
	}
	get(root, b.serviceRoot)
	get(root+"/{$}", b.serviceRoot)
	get(root+"/Systems", func() object { return collection(root+"/Systems", systemPath) })
	get(root+"/Managers", func() object { return collection(root+"/Managers", root+"/Managers/1") })
	get(root+"/Chassis", func() object { return collection(root+"/Chassis", root+"/Chassis/1") })
	get(root+"/Managers/1", func() object {
		return object{"@odata.id": root + "/Managers/1", "Id": "1", "Name": "Manager", "ManagerType": "BMC", "FirmwareVersion": "lab 1"}
	})
	get(root+"/Chassis/1", func() object {
		return object{"@odata.id": root + "/Chassis/1", "Id": "1", "Name": "Chassis", "ChassisType": "RackMount"}
	})
	get(root+"/UpdateService", func() object {
		return object{"@odata.id": root + "/UpdateService", "Id": "UpdateService", "Name": "Update Service", "ServiceEnabled": false}
	})
	get(root+"/SessionService", func() object {
		return object{"@odata.id": root + "/SessionService", "Id": "SessionService", "Name": "Session Service",
			"Sessions": link(root + "/SessionService/Sessions"), "ServiceEnabled": true, "SessionTimeout": 1800}
	})
	get(root+"/SessionService/Sessions", func() object { return collection(root+"/SessionService/Sessions", b.Sessions()...) })
	get(systemPath, b.system)
	b.hardware(get)
	mux.HandleFunc("POST "+root+"/SessionService/Sessions", b.openSession)
	mux.HandleFunc("DELETE "+root+"/SessionService/Sessions/{id}", b.deleteSession)
	mux.HandleFunc("POST "+resetPath, b.reset)
	mux.HandleFunc("PATCH "+systemPath, b.patch)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("OData-Version", "4.0")
		if b.misbehave(w, r) {
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
		open := strings.TrimSuffix(r.URL.Path, "/") == root || (r.Method == http.MethodPost && r.URL.Path == root+"/SessionService/Sessions")
		if who := b.who(r); who != "" || open {
			if strings.HasPrefix(r.URL.Path, root+"/SessionService") && b.fault().NoSessions {
				fail(w, http.StatusNotFound, "ResourceMissingAtURI")
				return
			}
			mux.ServeHTTP(w, r)
			return
		}
		if r.Method != http.MethodGet {
			b.note(Request{At: time.Now(), Method: r.Method, Path: r.URL.Path, Status: http.StatusUnauthorized, Powered: b.cfg.Machine.Powered()})
		}
		fail(w, http.StatusUnauthorized, "NoValidSession")
	})
}

// who is the session's URI, "basic", or "" for a stranger.
func (b *BMC) who(r *http.Request) string {
	if token := r.Header.Get("X-Auth-Token"); token != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.sessions[token].uri
	}
	if user, pass, ok := r.BasicAuth(); ok && b.login(user, pass) {
		return "basic"
	}
	return ""
}

func (b *BMC) login(user, pass string) bool {
	return subtle.ConstantTimeCompare([]byte(user), []byte(b.cfg.User))&subtle.ConstantTimeCompare([]byte(pass), []byte(b.cfg.Password)) == 1
}

func (b *BMC) serviceRoot() object {
	o := object{
		"@odata.id": root, "@odata.type": "#ServiceRoot.v1_15_0.ServiceRoot", "Id": "RootService", "Name": "Simulated BMC",
		"RedfishVersion": "1.18.0", "UUID": b.cfg.Machine.Board().UUID, "Vendor": "Farrier lab",
		"Systems": link(root + "/Systems"), "Managers": link(root + "/Managers"), "Chassis": link(root + "/Chassis"),
		"UpdateService": link(root + "/UpdateService"),
	}
	if !b.fault().NoSessions {
		o["SessionService"] = link(root + "/SessionService")
		o["Links"] = object{"Sessions": link(root + "/SessionService/Sessions")}
	}
	return o
}

func (b *BMC) openSession(w http.ResponseWriter, r *http.Request) {
	var in struct{ UserName, Password string }
	note := Request{At: time.Now(), Method: r.Method, Path: r.URL.Path, Status: http.StatusCreated, Powered: b.cfg.Machine.Powered()}
	defer func() { b.note(note) }()
	if json.NewDecoder(r.Body).Decode(&in) != nil || !b.login(in.UserName, in.Password) {
		note.Status = http.StatusUnauthorized
		fail(w, note.Status, "ResourceAtUriUnauthorized")
		return
	}
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails since Go 1.24
	token := hex.EncodeToString(raw[:])
	b.mu.Lock()
	full := len(b.sessions) >= b.cfg.MaxSessions
	if !full {
		b.next++
		note.Session = fmt.Sprintf("%s/SessionService/Sessions/%d", root, b.next)
		b.sessions[token] = session{uri: note.Session, user: in.UserName}
	}
	b.mu.Unlock()
	if full {
		note.Status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "3600")
		fail(w, note.Status, "SessionLimitExceeded")
		return
	}
	note.Effect = "session opened"
	w.Header().Set("X-Auth-Token", token)
	w.Header().Set("Location", note.Session)
	reply(w, http.StatusCreated, object{"@odata.id": note.Session, "Id": note.Session[strings.LastIndex(note.Session, "/")+1:], "Name": "Session", "UserName": in.UserName})
}

func (b *BMC) deleteSession(w http.ResponseWriter, r *http.Request) {
	note := Request{At: time.Now(), Method: r.Method, Path: r.URL.Path, Session: b.who(r), Status: http.StatusNotFound, Powered: b.cfg.Machine.Powered()}
	defer func() { b.note(note) }()
	b.mu.Lock()
	for token, s := range b.sessions {
		if s.uri == r.URL.Path {
			delete(b.sessions, token)
			note.Status, note.Effect = http.StatusNoContent, "session deleted"
		}
	}
	b.mu.Unlock()
	if note.Status == http.StatusNotFound {
		fail(w, note.Status, "ResourceMissingAtURI")
		return
	}
	w.WriteHeader(note.Status)
}

func (b *BMC) reset(w http.ResponseWriter, r *http.Request) {
	var in struct{ ResetType string }
	if json.NewDecoder(r.Body).Decode(&in) != nil {
		fail(w, http.StatusBadRequest, "MalformedJSON")
		return
	}
	b.change(w, r, in.ResetType, func() (int, error) { return b.power(in.ResetType) })
}

// change runs one effect on the machine, with its record and the faults that go with it.
func (b *BMC) change(w http.ResponseWriter, r *http.Request, effect string, run func() (int, error)) {
	note := Request{At: time.Now(), Method: r.Method, Path: r.URL.Path, Session: b.who(r), Powered: b.cfg.Machine.Powered()}
	defer func() { b.note(note) }()
	if b.take(func(f *Faults) *int { return &f.FailChanges }) {
		note.Status = http.StatusInternalServerError
		fail(w, note.Status, "InternalError")
		return
	}
	status, err := run()
	if err == nil && status < 400 {
		note.Effect = effect
	}
	if b.take(func(f *Faults) *int { return &f.FailAfter }) {
		status, err = http.StatusInternalServerError, nil
	}
	note.Status = status
	switch {
	case err != nil:
		note.Status = http.StatusInternalServerError
		fail(w, note.Status, "InternalError: "+err.Error())
	case status >= 400:
		fail(w, status, http.StatusText(status))
	default:
		w.WriteHeader(status)
	}
}

// power carries out a reset type, at once or after the delay that the faults ask for.
func (b *BMC) power(kind string) (int, error) {
	m := b.cfg.Machine
	var run func() error
	moving := ""
	switch kind {
	case "On":
		run, moving = m.PowerOn, "PoweringOn"
	case "ForceOff":
		run, moving = m.PowerOff, "PoweringOff"
	case "GracefulShutdown":
		run = m.SoftOff
	case "ForceRestart":
		run = m.Reset
	case "PowerCycle":
		run = func() error {
			if err := m.PowerOff(); err != nil {
				return err
			}
			return m.PowerOn()
		}
	default:
		return http.StatusBadRequest, nil
	}
	f := b.fault()
	if f.Stuck {
		return http.StatusNoContent, nil
	}
	if kind != "On" && kind != "ForceOff" && !m.Powered() {
		return http.StatusConflict, nil
	}
	if f.PowerDelay == 0 || moving == "" {
		b.machine.Lock()
		defer b.machine.Unlock()
		return http.StatusNoContent, run()
	}
	b.setMoving(moving)
	b.late.Add(1)
	go func() {
		defer b.late.Done()
		t := time.NewTimer(f.PowerDelay)
		defer t.Stop()
		select {
		case <-t.C:
			b.machine.Lock()
			_ = run()
			b.machine.Unlock()
		case <-b.stopping:
		}
		b.setMoving("")
	}()
	return http.StatusAccepted, nil
}

func (b *BMC) setMoving(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.moving = s
}

func (b *BMC) patch(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Boot struct {
			BootSourceOverrideTarget, BootSourceOverrideEnabled, BootSourceOverrideMode string
		}
	}
	if json.NewDecoder(r.Body).Decode(&in) != nil {
		fail(w, http.StatusBadRequest, "MalformedJSON")
		return
	}
	p := in.Boot
	effect := fmt.Sprintf("boot %s %s", p.BootSourceOverrideTarget, p.BootSourceOverrideEnabled)
	b.change(w, r, effect, func() (int, error) {
		if p.BootSourceOverrideMode != "" && b.fault().BootMode500 {
			return http.StatusInternalServerError, nil
		}
		b.machine.Lock()
		defer b.machine.Unlock()
		boot := b.cfg.Machine.Boot()
		switch p.BootSourceOverrideTarget {
		case lab.BootNone, lab.BootPXE, lab.BootDisk, lab.BootHTTP:
			boot.Target = p.BootSourceOverrideTarget
		case "":
		default:
			return http.StatusBadRequest, nil
		}
		switch p.BootSourceOverrideEnabled {
		case "Once":
			boot.Once = !b.fault().OnceStays
		case "Continuous":
			boot.Once = false
		case "Disabled":
			boot.Target, boot.Once = lab.BootNone, false
		}
		if p.BootSourceOverrideMode != "" {
			boot.Mode = p.BootSourceOverrideMode
		}
		return http.StatusNoContent, b.cfg.Machine.SetBoot(boot)
	})
}

func reply(w http.ResponseWriter, status int, body object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func fail(w http.ResponseWriter, status int, message string) {
	reply(w, status, object{"error": object{"code": "Base.1.18." + strings.SplitN(message, ":", 2)[0], "message": message}})
}

func collection(path string, members ...string) object {
	links := make([]object, 0, len(members))
	for _, m := range members {
		links = append(links, link(m))
	}
	return object{"@odata.id": path, "Name": "Collection", "Members": links, "Members@odata.count": len(links)}
}
