package message

import (
	"fmt"

	"github.com/farrier-project/farrier/coordinator/node"
)

// Reader makes values of the core of what requests hold. What it takes needs chance, which this room has not.
type Reader struct {
	// Seal closes a secret for one node and field: the box opens nowhere else.
	Seal func(id node.ID, field string, plain []byte) (node.Sealed, error)
	// NewID draws a UUID.
	NewID func() string
}

// UUID makes a version 4 UUID (RFC 9562, section 5.4) of random bytes.
func UUID(b [16]byte) string {
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}
