package message

import (
	"fmt"
	"strings"
	"testing"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/pkg/fault"
)

func TestDeploySealsUserData(t *testing.T) {
	r := Reader{Seal: func(id node.ID, field string, plain []byte) (node.Sealed, error) {
		return node.Sealed{KeyID: 1, Box: fmt.Appendf(nil, "%s %s %x", id, field, plain)}, nil
	}}
	n := &node.Node{ID: "11111111-2222-4333-8444-555555555555"}
	args := &farrierv1.DeployArgs{Image: &farrierv1.Image{Url: "http://h/i", Sha256: strings.Repeat("a", 64), Format: "raw"},
		UserData: []byte("#cloud-config canary"), NetworkData: []byte(`{"canary":1}`), Hostname: "web-1", MetaData: map[string]string{"k": "v"}}
	i, err := r.Instance(n, lifecycle.Deploy, args)
	if err != nil {
		t.Fatal(err)
	}
	for field, box := range map[string]node.Sealed{"user_data": i.UserData, "network_data": i.NetworkData} {
		if want := fmt.Sprintf("%s %s %x", n.ID, field, map[string][]byte{"user_data": args.UserData, "network_data": args.NetworkData}[field]); string(box.Box) != want {
			t.Errorf("%s: sealed is %q, want %q", field, box.Box, want)
		}
	}
	args.UserData = make([]byte, maxBlob+1)
	if _, err := r.Instance(n, lifecycle.Deploy, args); !fault.Is(err, fault.TooLarge) {
		t.Errorf("too much user data: %v", err)
	}
}
