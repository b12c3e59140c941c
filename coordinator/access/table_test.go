package access

import (
	"maps"
	"strings"
	"testing"

	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
)

func TestTableCoversTheDefinitions(t *testing.T) {
	if _, err := Methods(); err != nil {
		t.Fatal(err)
	}
	short := maps.Clone(table)
	delete(short, fc.NodeServiceGetNodeProcedure)
	if _, err := methods(short); err == nil || !strings.Contains(err.Error(), "GetNode") {
		t.Errorf("a method without a row: %v", err)
	}
	long := maps.Clone(table)
	long["/farrier.v1.NodeService/Explode"] = row{roles: operators, where: Leader}
	if _, err := methods(long); err == nil {
		t.Error("a row without a method passed")
	}
}
