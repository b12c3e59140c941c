package message

import (
	"maps"

	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/refusal"
)

// splitInfo parts driver_info into what is stored in clear and what is sealed. A hidden value keeps the secret of
// before.
func (r *Reader) splitInfo(id node.ID, info map[string]string, before map[string]node.Sealed) (map[string]string, map[string]node.Sealed, error) {
	if err := checkMap("driver_info", info, maxMap); err != nil {
		return nil, nil, err
	}
	if raw := info["redfish_address"]; raw != "" {
		if err := checkAddress(raw); err != nil {
			return nil, nil, err
		}
	}
	clear, secrets := map[string]string{}, map[string]node.Sealed{}
	for key, value := range info {
		switch old, had := before[key]; {
		case !secretKey(key):
			clear[key] = value
		case value != hidden:
			box, err := r.Seal(id, key, []byte(value))
			if err != nil {
				return nil, nil, err
			}
			secrets[key] = box
		case had:
			secrets[key] = old
		default:
			return nil, nil, refusal.Invalid("driver_info."+key, "%s stands for a secret that is stored, and none is", hidden)
		}
	}
	return clear, secrets, nil
}

// mergeKey changes one key of a map and leaves the map as it was; without a value the key goes.
func mergeKey[V any](m map[string]V, key string, value V, has bool) map[string]V {
	out := maps.Clone(m)
	if out == nil {
		out = map[string]V{}
	}
	if has {
		out[key] = value
	} else {
		delete(out, key)
	}
	return out
}
