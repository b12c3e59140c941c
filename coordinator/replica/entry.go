package replica

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/pkg/fault"
)

// An entry is a version byte, a checksum over cluster and commands, and the commands. The checksum travels with
// the entry from the proposer to each member's Apply, through memory and network, which that of the store does not.
const (
	entryVersion = 1
	entryHeader  = 1 + 8
)

func entrySum(cluster string, commands []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	d.WriteString(cluster)
	d.Write([]byte{0})
	d.Write(commands)
	return d.Sum64()
}

// sealEntry makes an entry of encoded commands, of which there may be none: such an entry is a barrier.
func sealEntry(cluster string, parts ...[]byte) []byte {
	n := entryHeader
	for _, p := range parts {
		n += len(p)
	}
	out := make([]byte, entryHeader, n)
	for _, p := range parts {
		out = append(out, p...)
	}
	out[0] = entryVersion
	binary.BigEndian.PutUint64(out[1:], entrySum(cluster, out[entryHeader:]))
	return out
}

// openEntry reads an entry. Its errors are fault.Corrupt and fault.Version.
func openEntry(cluster string, data []byte) ([]command.Command, error) {
	if len(data) < entryHeader {
		return nil, fault.New(fault.Corrupt, "open log entry", "%d bytes", len(data))
	}
	if data[0] != entryVersion {
		return nil, fault.New(fault.Version, "open log entry", "version %d instead of %d", data[0], entryVersion).
			WithHelp("the log was written by a newer release: start this member again with that release")
	}
	if binary.BigEndian.Uint64(data[1:]) != entrySum(cluster, data[entryHeader:]) {
		return nil, fault.New(fault.Corrupt, "open log entry", "the checksum does not match: the entry is damaged or of another cluster")
	}
	return command.Decode(data[entryHeader:])
}
