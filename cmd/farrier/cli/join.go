package cli

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// operatorJoin turns a token into a configuration directory.
func (a *app) operatorJoin() *cobra.Command {
	c := &cobra.Command{Use: "join TOKEN", Short: "Make a configuration directory from a token", Args: exactly(1),
		Long: "Make a configuration directory from a token: in --config, or $FARRIER_CONFIG, or ~/.config/farrier.\n\n" +
			"With - for TOKEN it is read from standard input, where ps and the shell's history do not show it."}
	c.RunE = func(c *cobra.Command, args []string) error {
		text := args[0]
		if text == "-" {
			data, err := io.ReadAll(io.LimitReader(a.in, maxAttachment))
			if err != nil {
				return fault.Wrap("read token", err)
			}
			text = strings.TrimSpace(string(data))
		}
		token, err := identity.ParseJoinToken(text)
		if err != nil {
			return err
		}
		if token.Role != identity.RoleOperator {
			return fault.New(fault.Invalid, "join", "the token is for role %s", token.Role).WithHelp("make one with `farrier operator token NAME`")
		}
		dir, err := a.joinDir()
		if err != nil {
			return err
		}
		if old, err := identity.OpenStore(dir); err == nil && old.Peer().Name != token.Name {
			return fault.New(fault.Exists, "join", "%s holds the certificate of operator %s", dir, old.Peer().Name).
				WithHelp("give another directory: farrier --config DIRECTORY operator join TOKEN")
		}
		store, err := identity.NewStore(dir)
		if err != nil {
			return err
		}
		csr, err := store.CSR()
		if err != nil {
			return err
		}
		res, err := joinAny(c, token, &farrierv1.JoinRequest{Token: text, CsrDer: csr, Version: c.Root().Version, FeatureLevel: 1})
		if err != nil {
			return err
		}
		if err := store.Put(res.GetChainDer(), res.GetCaDer()); err != nil {
			return err
		}
		servers := res.GetApiAddresses()
		if len(servers) == 0 {
			servers = token.Addresses
		}
		if err := client.WriteServers(filepath.Join(dir, client.ServersFile), servers, 0o600); err != nil {
			return fault.Wrap("join", err)
		}
		fmt.Fprintf(a.out, "joined as %s; configuration in %s\n", res.GetName(), dir)
		return nil
	}
	return c
}

func joinAny(c *cobra.Command, token identity.JoinToken, req *farrierv1.JoinRequest) (*farrierv1.JoinResponse, error) {
	h := &http.Client{Transport: identity.Transport(identity.JoinTLS(token.CAHash))}
	defer h.CloseIdleConnections()
	var last error
	for _, address := range token.Addresses {
		res, err := farrierv1connect.NewJoinServiceClient(h, "https://"+address).Join(c.Context(), req)
		if err == nil {
			return res, nil
		}
		last = client.Fault(err)
		switch fault.KindOf(last) {
		case fault.Unavailable, fault.Timeout, fault.NoQuorum, fault.NotLeader, fault.UnknownOutcome: // a join may be repeated
		default:
			return nil, last
		}
	}
	return nil, last
}
