package view

import "testing"

// TestATokenHadTwoFaces: errors and events say 1.89, JSON a number; both are read.
func TestATokenHadTwoFaces(t *testing.T) {
	for text, want := range map[string]Token{"1.89": 1<<48 + 89, "281474976710745": 1<<48 + 89, "0.3": 3, "3": 3} {
		var got Token
		if err := got.Set(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	var x Token = 1<<48 + 89
	if x.String() != "1.89" {
		t.Errorf("it is written %s", x.String())
	}
	for _, text := range []string{"", "1.", ".1", "x", "1.2.3", "65536.1", "-1"} {
		if err := x.Set(text); err == nil {
			t.Errorf("%q was read as %d", text, x)
		}
	}
}
