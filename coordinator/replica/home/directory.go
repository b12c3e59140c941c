package home

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/farrier-project/farrier/coordinator/replica/fatal"
	"github.com/farrier-project/farrier/pkg/fault"
)

const ownerFile = "member.json"

func (p Place) logFile() string     { return filepath.Join(p.Dir, "raft.db") }
func (p Place) snapshotDir() string { return filepath.Join(p.Dir, "snapshots") }

// owner is what the member file holds: whose log this is. It keeps a directory from being used for another cluster or
// member, and a cluster from being made twice.
type owner struct {
	Cluster string `json:"cluster"`
	Member  string `json:"member"`
}

func (p Place) owner() owner { return owner{Cluster: p.Cluster, Member: p.Member} }

func readOwner(dir string) (owner, error) {
	path := filepath.Join(dir, ownerFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return owner{}, nobody(dir)
	}
	var o owner
	if err != nil || json.Unmarshal(raw, &o) != nil || o.Cluster == "" || o.Member == "" {
		return owner{}, fatal.Corrupt(path, "it does not name a member: %w", errors.Join(err, errors.New("bad content")))
	}
	return o, nil
}

func nobody(where string) *fault.Error {
	return fault.New(fault.NotFound, "open replica", "%s holds no member of a cluster", where).
		WithHelp("make a new cluster with `farrier-coordinator init`, or join one with `farrier-coordinator join TOKEN`")
}

func writeOwner(dir string, o owner) error {
	raw, err := json.Marshal(o)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, ownerFile)
	f, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(append(raw, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// privateDir makes a directory that only this user can enter.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return nil
}
