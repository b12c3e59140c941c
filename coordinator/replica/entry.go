package replica

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/farrier-project/farrier/pkg/fault"
)

// An entry is a byte that says what it holds, a checksum over cluster and content, and the content. The checksum travels
// with the entry from the proposer to each member's Apply, through memory and network, which that of the store does not.
const (
	entryCommands = 1 // commands, of which there may be none: such an entry is a barrier
	entryPart     = 2 // a part of an archive: see restore.go
	entryRestore  = 3 // the state becomes the archive's
	entryHeader   = 1 + 8
)

func entrySum(cluster string, holds byte, content []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	d.WriteString(cluster)
	d.Write([]byte{holds - entryCommands})
	d.Write(content)
	return d.Sum64()
}

// sealEntry makes an entry of encoded content.
func sealEntry(cluster string, holds byte, parts ...[]byte) []byte {
	n := entryHeader
	for _, p := range parts {
		n += len(p)
	}
	out := make([]byte, entryHeader, n)
	for _, p := range parts {
		out = append(out, p...)
	}
	out[0] = holds
	binary.BigEndian.PutUint64(out[1:], entrySum(cluster, holds, out[entryHeader:]))
	return out
}

// openEntry reads an entry. Its errors are fault.Corrupt and fault.Version.
func openEntry(cluster string, data []byte) (holds byte, content []byte, err error) {
	if len(data) < entryHeader {
		return 0, nil, fault.New(fault.Corrupt, "open log entry", "%d bytes", len(data))
	}
	if holds = data[0]; holds < entryCommands || holds > entryRestore {
		return 0, nil, fault.New(fault.Version, "open log entry", "it is of kind %d, the newest known is %d", holds, entryRestore).
			WithHelp("the log was written by a newer release: start this member again with that release")
	}
	content = data[entryHeader:]
	if binary.BigEndian.Uint64(data[1:]) != entrySum(cluster, holds, content) {
		return 0, nil, fault.New(fault.Corrupt, "open log entry", "the checksum does not match: the entry is damaged or of another cluster")
	}
	return holds, content, nil
}
