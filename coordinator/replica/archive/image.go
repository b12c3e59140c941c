package archive

import (
	"bytes"
	"encoding/binary"
	"io"

	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// imageHeader leads an image: the index applied and the hash of the state.
const imageHeader = 8 + 16

// Image is a state to be written: that after an entry.
type Image struct {
	View    *state.View
	Applied uint64 // index of that entry
}

// Write writes the image.
func (z Image) Write(w io.Writer) error {
	h := z.View.Hash()
	if _, err := w.Write(append(binary.BigEndian.AppendUint64(nil, z.Applied), h[:]...)); err != nil {
		return err
	}
	return z.View.WriteSnapshot(w)
}

// ReadImage reads what Image.Write wrote. Errors are fault.Corrupt.
func ReadImage(r io.Reader) (s *state.State, applied uint64, err error) {
	var head [imageHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, 0, fault.New(fault.Corrupt, "read snapshot", "%w", err)
	}
	s, err = state.ReadSnapshot(r)
	if err != nil {
		return nil, 0, err
	}
	if h := s.Hash(); !bytes.Equal(h[:], head[8:]) {
		return nil, 0, fault.New(fault.Corrupt, "read snapshot", "its state has hash %x, it was written with %x", h, head[8:])
	}
	return s, binary.BigEndian.Uint64(head[:]), nil
}
