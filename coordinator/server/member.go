package server

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/farrier-project/farrier/coordinator/config"
	"github.com/farrier-project/farrier/pkg/fault"
)

// memberFile marks a data directory that was initialised, and keeps what was chosen then.
const memberFile = "member.json"

// member is what memberFile holds.
type member struct {
	Name    string    `json:"name"`
	Cluster string    `json:"cluster"`
	Listen  addresses `json:"listen"` // with the ports that were chosen
}

// addresses are host:port of the three listeners, as JSON shows them.
type addresses struct {
	Name string `json:"name,omitempty"`
	API  string `json:"api"`
	Raft string `json:"raft"`
	Rack string `json:"rack"`
}

func readMember(data string) (member, error) {
	var m member
	raw, err := os.ReadFile(filepath.Join(data, memberFile))
	if errors.Is(err, fs.ErrNotExist) {
		return m, fault.New(fault.NotFound, "open data directory", "%s was never initialised", data).
			WithHelp("farrier-coordinator init makes a cluster, farrier-coordinator join joins one")
	}
	if err != nil {
		return m, fault.Wrap("open data directory", err)
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fault.New(fault.Corrupt, "open data directory", "%s: %w", filepath.Join(data, memberFile), err)
	}
	return m, nil
}

func (m member) write(data string) error {
	return fault.Wrap("write "+memberFile, writeJSON(filepath.Join(data, memberFile), m))
}

// keepConfig writes the configuration and the mark of an initialised directory, the mark last.
func keepConfig(cfg config.Config, cluster string, bound addresses) error {
	cfg.Listen = config.Addresses{API: bound.API, Raft: bound.Raft, Rack: bound.Rack}
	if err := cfg.Save(filepath.Join(cfg.Data, config.File)); err != nil {
		return err
	}
	return member{Name: cfg.Name, Cluster: cluster, Listen: bound}.write(cfg.Data)
}

// refuseInitialised is an error if the directory already belongs to a member.
func refuseInitialised(data string) error {
	m, err := readMember(data)
	switch {
	case fault.Is(err, fault.NotFound):
		return nil
	case err != nil:
		return err
	default:
		return fault.New(fault.Exists, "open data directory", "%s already holds member %s of cluster %s", data, m.Name, m.Cluster).
			WithHelp("farrier-coordinator run starts it; give another --data for another member")
	}
}

// settle puts the ports chosen at first start in the place of zeros.
func settle(cfg *config.Config, m member) {
	for _, x := range []struct {
		listen *string
		chosen string
	}{{&cfg.Listen.API, m.Listen.API}, {&cfg.Listen.Raft, m.Listen.Raft}, {&cfg.Listen.Rack, m.Listen.Rack}} {
		host, port, err := net.SplitHostPort(*x.listen)
		if err != nil || port != "0" {
			continue
		}
		if _, kept, err := net.SplitHostPort(x.chosen); err == nil {
			*x.listen = net.JoinHostPort(host, kept)
		}
	}
}

// writeJSON writes a file whole or not at all, mode 0600.
func writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(data, '\n'))
}

func writeFile(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone already when all went well
	if _, err := tmp.Write(data); err != nil {
		return err
	}
	if err := errors.Join(tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
