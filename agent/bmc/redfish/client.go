package redfish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/stmcginnis/gofish"
	"github.com/stmcginnis/gofish/schemas"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Driver makes clients. The zero Driver has the default times. It is safe for concurrent use.
type Driver struct {
	ReadTimeout   time.Duration // of one reading call whose context has no deadline. Default 30 s
	ChangeTimeout time.Duration // of one change with its read-back, likewise. Default 10 s
	Poll          time.Duration // first pause between read-backs; it doubles up to 1 s. Default 100 ms
}

// Open implements bmc.Factory.
func (d *Driver) Open(t bmc.Target) (bmc.Client, error) {
	in, err := parseInfo(t.DriverInfo)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        in.tls,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  30 * time.Second,
		MaxIdleConnsPerHost:    1,
		MaxConnsPerHost:        2,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
	}
	w := &wire{base: transport, origin: in.endpoint}
	return &Client{
		in: in, wire: w, transport: transport,
		http:          &http.Client{Transport: w, CheckRedirect: checkRedirect, Timeout: 2 * time.Minute},
		readTimeout:   orDefault(d.ReadTimeout, 30*time.Second),
		changeTimeout: orDefault(d.ChangeTimeout, 10*time.Second),
		poll:          orDefault(d.Poll, 100*time.Millisecond),
	}, nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return def
}

// Client is one BMC. Calls are serialised; each lives under its own context.
type Client struct {
	in        *info
	wire      *wire
	transport *http.Transport
	http      *http.Client

	readTimeout, changeTimeout, poll time.Duration

	mu     sync.Mutex        // one call at a time: guards the fields below
	api    *gofish.APIClient // nil until the service root was read
	ready  bool              // credentials are in the wire
	system string            // path of the system, once known
	record func(ctx context.Context, uri string) error
	noted  string // URI of the session that was recorded last
	fenced bool   // record is set: a session that ends is not silently replaced inside a change
	sent   bool   // the call in work has sent a change, and the BMC did not refuse its session
}

var (
	_ bmc.Client = (*Client)(nil)
	_ bmc.Fencer = (*Client)(nil)
)

// call runs fn with a gofish client bound to a context, logged in. A reading call whose session is over logs in
// once more. A change does so only on a client without a fence: on one with a fence a session that is over may
// have been ended by the node's new owner, so the change stops with fault.Unavailable, undone, and the next call logs in.
func (c *Client) call(ctx context.Context, op string, change bool, fn func(ctx context.Context, api *gofish.APIClient) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := c.deadline(ctx, change)
	defer cancel()
	c.sent = false
	for try := 1; ; try++ {
		api, err := c.login(ctx)
		if err == nil && change {
			err = c.note(ctx)
		}
		if err != nil {
			return classify(op, late(ctx, err))
		}
		err = late(ctx, fn(ctx, api))
		if statusOf(err) != http.StatusUnauthorized {
			return classify(op, err)
		}
		token, _ := c.wire.credentials()
		if token == "" || try == 2 {
			return classify(op, err)
		}
		c.wire.setSession("", "")
		c.ready = false
		if change && c.sent {
			return fault.New(fault.UnknownOutcome, op, "the BMC session of this agent was ended after the request had been sent")
		}
		if change && c.fenced {
			return fault.New(fault.Unavailable, op, "the BMC session of this agent was ended, and nothing was changed").
				WithHelp("another agent may own the node now; ask again while the right to act stands")
		}
	}
}

// late says that the caller's time was up, where a connection that was closed for it is all that the error tells.
func late(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && statusOf(err) == 0 {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return err
}

func (c *Client) deadline(ctx context.Context, change bool) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	if change {
		return context.WithTimeout(ctx, c.changeTimeout)
	}
	return context.WithTimeout(ctx, c.readTimeout)
}

// login returns a client bound to ctx that has credentials.
func (c *Client) login(ctx context.Context) (*gofish.APIClient, error) {
	if c.api == nil {
		api, err := gofish.ConnectContext(ctx, gofish.ClientConfig{
			Endpoint: c.in.endpoint, HTTPClient: c.http, ReuseConnections: true, NoModifyTransport: true,
		})
		if err != nil {
			return nil, err
		}
		c.api = api
	}
	api := c.api.WithContext(ctx)
	if c.ready {
		return api, nil
	}
	if c.in.username != "" {
		if err := c.authenticate(ctx, api); err != nil {
			return nil, err
		}
	}
	c.ready = true
	return api, nil
}

func (c *Client) authenticate(ctx context.Context, api *gofish.APIClient) error {
	if c.in.auth == authBasic {
		c.wire.setBasic(c.in.username, c.in.password)
		return nil
	}
	var root struct {
		Links struct {
			Sessions struct {
				ID string `json:"@odata.id"`
			}
		}
	}
	if err := get(api, "/redfish/v1/", &root); err != nil {
		return err
	}
	if root.Links.Sessions.ID == "" {
		if c.in.auth == authSession {
			return fault.New(fault.Unsupported, "open session", "the BMC has no sessions").WithHelp("set redfish_auth_type to basic")
		}
		c.wire.setBasic(c.in.username, c.in.password)
		return nil
	}
	auth, err := schemas.CreateSession(api, root.Links.Sessions.ID, c.in.username, c.in.password)
	if err == nil && (auth.Token == "" || auth.Session == "") {
		err = fault.New(fault.Corrupt, "open session", "the BMC gave no token or no session URI")
	}
	if err != nil {
		return c.sessionRefused(err)
	}
	c.wire.setSession(auth.Token, auth.Session)
	return nil
}

// note has the open session recorded, once, on a client with a fence. A session that cannot be recorded is ended.
func (c *Client) note(ctx context.Context) error {
	uri := c.wire.sessionURI()
	if c.record == nil || uri == "" || uri == c.noted {
		return nil
	}
	if err := c.record(ctx, uri); err != nil {
		_ = c.logout(context.WithoutCancel(ctx)) // bounded by the transport; what stays open times out at the BMC
		return fault.Wrap("record bmc session", err)
	}
	c.noted = uri
	return nil
}

// sessionRefused tells a wrong password from a service without sessions, and from one that opens none now: all are
// taken, or it is starting. Only a service without them is worth giving up the fence that a session is.
func (c *Client) sessionRefused(err error) error {
	status := statusOf(err)
	var e *schemas.Error
	loginRefused := errors.As(err, &e) && strings.Contains(e.Error(), "Unauthorized") // iLO 5 answers 400 with UnauthorizedLoginAttempt
	if status == http.StatusUnauthorized || status == http.StatusForbidden || loginRefused {
		return fault.New(fault.Unauthenticated, "open session", "the BMC refuses the user name or password (%d)", status).
			WithHelp("set redfish_username and redfish_password")
	}
	switch status {
	case 0:
		return err
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		if c.in.auth == authAuto {
			c.wire.setBasic(c.in.username, c.in.password)
			return nil
		}
		return fault.New(fault.Unsupported, "open session", "the BMC has no sessions (%d)", status).WithHelp("set redfish_auth_type to basic")
	}
	return fault.New(fault.Busy, "open session", "the BMC opens no session (%d): %s", status, brief(err)).
		WithHelp("end sessions that others left open at the BMC, or, if it never opens one, set redfish_auth_type to basic")
}

// Fence implements bmc.Fencer.
func (c *Client) Fence(ctx context.Context, previous []string, record func(ctx context.Context, uri string) error) (bool, error) {
	c.mu.Lock()
	c.record, c.fenced = record, true
	c.mu.Unlock()
	err := c.call(ctx, "fence bmc", false, func(ctx context.Context, api *gofish.APIClient) error {
		if err := c.note(ctx); err != nil {
			return err
		}
		own := c.wire.sessionURI()
		for _, uri := range previous {
			if uri == "" || uri == own || !strings.HasPrefix(uri, "/redfish/v1/") {
				continue
			}
			if err := deleteSession(api, uri); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	return c.wire.sessionURI() != "", nil
}

func deleteSession(api *gofish.APIClient, uri string) error {
	err := api.Service.DeleteSession(uri)
	if s := statusOf(err); s == http.StatusNotFound || s == http.StatusGone {
		return nil
	}
	return err
}

// Close implements bmc.Client.
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := c.logout(ctx)
	c.transport.CloseIdleConnections()
	return classify("close bmc session", err)
}

func (c *Client) logout(ctx context.Context) error {
	uri := c.wire.sessionURI()
	if uri == "" || c.api == nil {
		return nil
	}
	err := deleteSession(c.api.WithContext(ctx), uri)
	c.wire.setSession("", "")
	c.ready = false
	if statusOf(err) == http.StatusUnauthorized {
		return nil // it was over already
	}
	return err
}

// systemPath finds the system once: the one named, or the only one.
func (c *Client) systemPath(api *gofish.APIClient) (string, error) {
	if c.system != "" {
		return c.system, nil
	}
	if c.in.systemID != "" {
		c.system = c.in.systemID
		return c.system, nil
	}
	var list struct {
		Members []struct {
			ID string `json:"@odata.id"`
		}
	}
	if err := get(api, "/redfish/v1/Systems", &list); err != nil {
		return "", err
	}
	switch len(list.Members) {
	case 0:
		return "", fault.New(fault.NoMatch, "find system", "the BMC lists no system")
	case 1:
		u, err := url.ParseRequestURI(list.Members[0].ID)
		if err != nil || u.Host != "" {
			return "", fault.New(fault.Corrupt, "find system", "the BMC's system has no path")
		}
		c.system = u.Path
		return c.system, nil
	}
	return "", fault.New(fault.Ambiguous, "find system", "the BMC lists %d systems", len(list.Members)).
		WithHelp("set redfish_system_id to the path of one, for example %s", list.Members[0].ID)
}

// get decodes one resource into v.
func get(api *gofish.APIClient, path string, v any) error {
	resp, err := api.Get(path)
	if err != nil {
		return err
	}
	defer schemas.DeferredCleanupHTTPResponse(resp)
	return json.NewDecoder(resp.Body).Decode(v)
}

// fullSystem reads the system with gofish, for its actions and links.
func (c *Client) fullSystem(api *gofish.APIClient) (*schemas.ComputerSystem, error) {
	path, err := c.systemPath(api)
	if err != nil {
		return nil, err
	}
	sys, err := schemas.GetComputerSystem(api, path)
	if err != nil {
		return nil, err
	}
	sys.DisableEtagMatch(true) // see setBoot; actions need no tag
	return sys, nil
}
