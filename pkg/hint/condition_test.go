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
	for _, bad := range [][2]string{{"colour", "red"}, {"serial", strings.Repeat("x", MaxText+1)}, {"serial", "a\x1b"}, {"size", "big"}, {"size", "99999999999"}, {"size", "-1"},
		{"serial", "s=="}, {"serial", "<all-in> "}, {"serial", "<or> a <or> "}, {"size", ">="}, {"size", "<or> 1 <or> x"}} {
		if err := Check("f.", bad[0], bad[1]); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// TestOperatorOfIronicMatchedNoDisk: a hint as Ironic's users write it was taken for a text that no disk has.
func TestOperatorOfIronicMatchedNoDisk(t *testing.T) {
	for _, c := range []struct {
		hint     Hint
		value    string
		yes, not []string
	}{
		{Model, "Samsung SSD 980", []string{"samsung ssd 980"}, []string{"samsung ssd 980 pro", ""}},
		{Model, "s== samsung", []string{"SAMSUNG"}, []string{"samsung ssd"}},
		{Model, "s!= samsung", []string{"intel", ""}, []string{"Samsung"}},
		{Model, "<in> ssd", []string{"Samsung SSD 980"}, []string{"hard disk", ""}},
		{Model, "<all-in> ssd samsung", []string{"Samsung SSD 980"}, []string{"Intel SSD"}},
		{Vendor, "<or> Dell Inc. <or> HPE", []string{"dell inc.", "hpe"}, []string{"dell", "lenovo"}},
		{WWN, "<or> 0x5000C500A1 <or> 0x5000c500a2", []string{"5000c500a1", "0x5000C500A2"}, []string{"5000c500a3"}},
		{ID, "s== Disk-1", []string{"Disk-1"}, []string{"disk-1"}},
		{Name, "<or> /dev/sda <or> sdb", []string{"sda", "/dev/sdb"}, []string{"sdc"}},
	} {
		w, err := Parse("", string(c.hint), c.value)
		if err != nil {
			t.Errorf("%s=%s: %v", c.hint, c.value, err)
			continue
		}
		for _, have := range c.yes {
			if !w.Text(have) {
				t.Errorf("%s=%s does not want %q", c.hint, c.value, have)
			}
		}
		for _, have := range c.not {
			if w.Text(have) {
				t.Errorf("%s=%s wants %q", c.hint, c.value, have)
			}
		}
	}
	for value, want := range map[string]string{ // of 9, 10, 11, 12
		"10": " 10", "== 10": " 10", "= 11": " 11 12", ">= 11": " 11 12", "> 11": " 12", "< 10": " 9", "<= 10": " 9 10", "!= 10": " 9 11 12", "<or> 9 <or> 12": " 9 12",
	} {
		w, err := Parse("", "size", value)
		if err != nil {
			t.Errorf("size=%s: %v", value, err)
			continue
		}
		got := ""
		for n, text := range map[int64]string{9: " 9", 10: " 10", 11: " 11", 12: " 12"} {
			if w.GiB(n) != strings.Contains(want, text) {
				got += text
			}
		}
		if got != "" {
			t.Errorf("size=%s is wrong about%s", value, got)
		}
	}
}

func TestDiskWithTwoNames(t *testing.T) {
	w, err := Parse("", "wwn", "s!= eui.1")
	if err != nil {
		t.Fatal(err)
	}
	if w.Text("5000", "eui.1") || !w.Text("5000", "") {
		t.Error("a disk is refused by one of its names, and only by those it has")
	}
}

func TestOperatorThatAHintDoesNotHave(t *testing.T) {
	for _, c := range [][3]string{
		{"serial", ">= 5", "no operator >=; those it has are s==, s!=, <in>, <all-in>, <or>"},
		{"size", "<in> 5", "no operator <in>; those it has are =, =="},
		{"serial", "s>= a", "no operator s>="},
		{"min_size_gib", ">= 5", "write the value alone"},
		{"rotational", "s== true", "write the value alone"},
	} {
		if err := Check("", c[0], c[1]); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c[2]) {
			t.Errorf("%s=%s: %v", c[0], c[1], err)
		}
	}
}
