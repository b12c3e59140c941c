package entry

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Kind is what an entry holds.
type Kind byte

const (
	Commands Kind = 1 // commands, of which there may be none: such an entry is a barrier
	Part     Kind = 2 // a part of an archive
	Restore  Kind = 3 // the state becomes the archive's
)

const header = 1 + 8

// Full is the bytes of content above which an entry is closed. Only one that cannot be divided has more.
const Full = 256 << 10

func sum(cluster string, k Kind, content []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	d.WriteString(cluster)
	d.Write([]byte{byte(k - Commands)})
	d.Write(content)
	return d.Sum64()
}

// Seal makes an entry of the cluster. Its content is the parts, one after the other, which are copied once.
func Seal(cluster string, k Kind, parts ...[]byte) []byte {
	n := header
	for _, p := range parts {
		n += len(p)
	}
	out := make([]byte, header, n)
	for _, p := range parts {
		out = append(out, p...)
	}
	out[0] = byte(k)
	binary.BigEndian.PutUint64(out[1:], sum(cluster, k, out[header:]))
	return out
}

// Open reads an entry of the cluster; the content is a part of data. Errors are fault.Corrupt and fault.Version.
func Open(cluster string, data []byte) (k Kind, content []byte, err error) {
	if len(data) < header {
		return 0, nil, fault.New(fault.Corrupt, "open log entry", "%d bytes", len(data))
	}
	if k = Kind(data[0]); k < Commands || k > Restore {
		return 0, nil, fault.New(fault.Version, "open log entry", "it is of kind %d, the newest known is %d", k, Restore).
			WithHelp("the log was written by a newer release: start this member again with that release")
	}
	content = data[header:]
	if binary.BigEndian.Uint64(data[1:]) != sum(cluster, k, content) {
		return 0, nil, fault.New(fault.Corrupt, "open log entry", "the checksum does not match: the entry is damaged or of another cluster")
	}
	return k, content, nil
}
