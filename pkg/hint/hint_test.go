package hint

import (
	"strings"
	"testing"

	"github.com/farrier-project/farrier/pkg/fault"
)

func TestCheck(t *testing.T) {
	for _, h := range All() {
		value, bad := "x", ""
		switch h {
		case Size, MinSizeGiB:
			value, bad = "480", "0"
		case Rotational:
			value, bad = "true", "perhaps"
		}
		if err := Check("f.", string(h), value); err != nil {
			t.Errorf("%s=%s: %v", h, value, err)
		}
		if err := Check("f.", string(h), bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s=%s: %v", h, bad, err)
		}
	}
	for _, bad := range [][2]string{{"colour", "red"}, {"serial", strings.Repeat("x", MaxText+1)}, {"serial", "a\x1b"}, {"size", "big"}, {"size", "99999999999"}, {"size", "-1"}} {
		if err := Check("f.", bad[0], bad[1]); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
