package upload

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/replica/entry"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Submit puts an entry in the log, and returns once it is applied here; its error may be that of its result. The content
// belongs to the log from then on.
type Submit func(ctx context.Context, k entry.Kind, content []byte) error

// Send puts an image in the log, and has it put in place, under the generation that raise makes. With fault.UnknownOutcome it may
// have happened; after any other error it has not.
func Send(ctx context.Context, image io.Reader, raise command.Command, submit Submit) error {
	last, err := command.Encode(raise)
	if err != nil {
		return err
	}
	head := make([]byte, partHeader)
	rand.Read(head[:idSize]) // never fails: crypto/rand ends the process instead
	parts, sum, err := sendParts(ctx, head[:idSize], image, submit)
	if err != nil {
		return notRestored(err)
	}
	binary.BigEndian.PutUint32(head[idSize:], parts)
	return fault.Wrap(op, submit(ctx, entry.Restore, append(append(head, sum...), last...)))
}

// sendParts puts the parts of an upload in the log, one after the other.
func sendParts(ctx context.Context, id []byte, image io.Reader, submit Submit) (parts uint32, sum []byte, err error) {
	h := sha256.New()
	for {
		part := make([]byte, partHeader+PartBytes) // it belongs to the log from then on
		n, err := io.ReadFull(image, part[partHeader:])
		if errors.Is(err, io.EOF) {
			return parts, h.Sum(nil), nil
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, nil, err
		}
		copy(part, id)
		binary.BigEndian.PutUint32(part[idSize:], parts)
		part = part[:partHeader+n]
		h.Write(part[partHeader:])
		if err := submit(ctx, entry.Part, part); err != nil {
			return 0, nil, err
		}
		parts++
	}
}

// notRestored is the error when a part did not get through: without the last entry, those that did change nothing.
func notRestored(err error) error {
	if fault.Is(err, fault.UnknownOutcome) {
		return fault.New(fault.Unavailable, op, "nothing was restored: %w", err).WithHelp("restore it again")
	}
	return fault.Wrap(op, err)
}
