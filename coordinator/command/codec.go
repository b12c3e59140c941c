package command

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/farrier-project/farrier/api/gen/farrier/raftlog/v1"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Bounds of what enters the log.
const (
	MaxSize      = 256 << 10 // bytes of one encoded command
	MaxEntrySize = 1 << 20   // bytes of one entry that Decode accepts
)

// entryCommands is the number of Entry.commands.
const entryCommands = 1

// Encode makes the data of a log entry of the commands, in order. Entries concatenate. It fails with
// fault.TooLarge for a command over MaxSize, and with fault.Invalid for a command without a body or a batch
// within a batch.
func Encode(commands ...Command) ([]byte, error) {
	messages, total := make([]*pb.Command, len(commands)), 0
	sizes := make([]int, len(commands))
	for i := range commands {
		m, err := commandProto(&commands[i])
		if err != nil {
			return nil, err
		}
		messages[i], sizes[i] = m, proto.Size(m)
		if sizes[i] > MaxSize {
			return nil, fault.New(fault.TooLarge, opEncode, "%T has %d bytes, the bound is %d", commands[i].Body, sizes[i], MaxSize)
		}
		total += protowire.SizeTag(entryCommands) + protowire.SizeBytes(sizes[i])
	}
	out := make([]byte, 0, total)
	for i, m := range messages {
		out = protowire.AppendTag(out, entryCommands, protowire.BytesType)
		out = protowire.AppendVarint(out, uint64(sizes[i]))
		var err error
		// The message is not shared and was measured above, so its size need not be found again.
		if out, err = (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(out, m); err != nil {
			return nil, fault.New(fault.Invalid, opEncode, "%T: %w", commands[i].Body, err)
		}
	}
	return out, nil
}

const opEncode = "encode command"

func commandProto(c *Command) (*pb.Command, error) {
	body, err := bodyProto(c.Body, 0)
	if err != nil {
		return nil, fault.Wrap(opEncode, err)
	}
	return &pb.Command{
		Cluster: c.Header.Cluster, At: unixNano(c.Header.At), Actor: c.Header.Actor,
		Client: c.Header.Request.Client, Seq: c.Header.Request.Seq, Digest: array16(&c.Header.Request.Digest),
		Level: c.Header.Level, Seed: array16(&c.Header.Seed), Body: body,
	}, nil
}

// Decode reads an entry. It fails with fault.Version for a command of a newer level, and with fault.Corrupt for
// bytes that Encode never makes. The result shares no memory with data.
func Decode(data []byte) ([]Command, error) {
	const op = "decode log entry"
	if len(data) > MaxEntrySize {
		return nil, fault.New(fault.Corrupt, op, "%d bytes, the bound is %d", len(data), MaxEntrySize)
	}
	var commands []Command
	for len(data) > 0 {
		num, typ, n := protowire.ConsumeTag(data)
		if n < 0 {
			return nil, fault.New(fault.Corrupt, op, "command %d: %w", len(commands), protowire.ParseError(n))
		}
		if num != entryCommands || typ != protowire.BytesType {
			return nil, newer(op, len(commands), fmt.Sprintf("entry field %d", num))
		}
		raw, m := protowire.ConsumeBytes(data[n:])
		if m < 0 {
			return nil, fault.New(fault.Corrupt, op, "command %d: %w", len(commands), protowire.ParseError(m))
		}
		c, err := decodeCommand(raw, len(commands))
		if err != nil {
			return nil, fault.Wrap(op, err)
		}
		commands = append(commands, c)
		data = data[n+m:]
	}
	return commands, nil
}

func decodeCommand(raw []byte, i int) (Command, error) {
	if len(raw) > MaxSize {
		return Command{}, fault.New(fault.Corrupt, "", "command %d: %d bytes, the bound is %d", i, len(raw), MaxSize)
	}
	var m pb.Command
	if err := proto.Unmarshal(raw, &m); err != nil {
		return Command{}, fault.New(fault.Corrupt, "", "command %d: %w", i, err)
	}
	if unknown := m.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		num, _, _ := protowire.ConsumeTag(unknown)
		return Command{}, newer("", i, fmt.Sprintf("header field %d", num))
	}
	c := Command{Header: Header{
		Cluster: m.GetCluster(), At: timeOf(m.GetAt()), Actor: m.GetActor(),
		Request: RequestID{Client: m.GetClient(), Seq: m.GetSeq()}, Level: m.GetLevel(),
	}}
	err := errors.Join(put16(&c.Header.Request.Digest, m.GetDigest()), put16(&c.Header.Seed, m.GetSeed()))
	if err != nil {
		return Command{}, fault.New(fault.Corrupt, "", "command %d: %w", i, err)
	}
	c.Body, err = bodyOf(m.GetBody(), 0)
	if err != nil {
		return Command{}, fault.Wrap(fmt.Sprintf("command %d", i), err)
	}
	return c, nil
}

// newer is the error for what only a newer build can have written.
func newer(op string, i int, what string) *fault.Error {
	return fault.New(fault.Version, op, "command %d: unknown %s", i, what).
		WithHelp("the log was written by a newer release: start this member again with that release")
}

func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeOf(nano int64) time.Time {
	if nano == 0 {
		return time.Time{}
	}
	return time.Unix(0, nano).UTC()
}

func array16(a *[16]byte) []byte {
	if *a == ([16]byte{}) {
		return nil
	}
	return a[:]
}

func put16(to *[16]byte, from []byte) error {
	if len(from) != 0 && len(from) != len(to) {
		return fmt.Errorf("%d bytes where 16 are needed", len(from))
	}
	copy(to[:], from)
	return nil
}

func array32(a *[32]byte) []byte {
	if *a == ([32]byte{}) {
		return nil
	}
	return a[:]
}

func put32(to *[32]byte, from []byte) error {
	if len(from) != 0 && len(from) != len(to) {
		return fault.New(fault.Corrupt, "", "%d bytes where 32 are needed", len(from))
	}
	copy(to[:], from)
	return nil
}
