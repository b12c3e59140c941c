package cli

import (
	"bytes"
	"strings"
	"testing"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/cmd/farrier/selection"
	"github.com/farrier-project/farrier/cmd/farrier/view"
)

// TestFieldsOfThings: a list keeps its place in JSON and YAML, a table has the fields as columns, and one thing has them as lines.
func TestFieldsOfThings(t *testing.T) {
	list := &farrierv1.ListNodesResponse{Total: 1, Nodes: []*farrierv1.Node{{Id: "u", Name: "m1", PowerState: "power on", Traits: []string{"CUSTOM_A"}}}}
	f, err := selection.Parse(list.GetNodes()[0].ProtoReflect().Descriptor(), []string{"traits", "name", "fault"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		format      view.Format
		things, one string
	}{
		{view.Table, "TRAITS    NAME  FAULT\nCUSTOM_A  m1\n", "traits  CUSTOM_A\nname    m1\nfault   -\n"},
		{view.JSON, `{"index":"0","next_page_token":"","nodes":[{"traits":["CUSTOM_A"],"name":"m1","fault":""}],"total":"1"}`, `{"traits":["CUSTOM_A"],"name":"m1","fault":""}`},
		{view.YAML, "index: \"0\"\nnext_page_token: \"\"\nnodes:\n  - traits:\n      - CUSTOM_A\n    name: m1\n    fault: \"\"\ntotal: \"1\"\n", "traits:\n  - CUSTOM_A\nname: m1\nfault: \"\"\n"},
	} {
		var out bytes.Buffer
		s := &session{Printer: view.Printer{Out: &out, Format: c.format}}
		text := func() string {
			defer out.Reset()
			if c.format == view.JSON {
				return strings.NewReplacer("\n", "", " ", "").Replace(out.String())
			}
			return out.String()
		}
		if err := s.things(f, list, "nodes", nil); err != nil {
			t.Fatal(err)
		}
		if got := text(); got != c.things {
			t.Errorf("things as %s:\n%s", c.format, got)
		}
		if err := s.thing(f, list.GetNodes()[0], nil); err != nil {
			t.Fatal(err)
		}
		if got := text(); got != c.one {
			t.Errorf("one as %s:\n%s", c.format, got)
		}
	}
}
