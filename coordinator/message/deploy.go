package message

import (
	"encoding/json"
	"maps"
	"strconv"
	"strings"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/hint"
)

// Instance checks the arguments of a deploy and seals what is secret. What a rebuild does not name stays.
func (r *Reader) Instance(n *node.Node, verb lifecycle.Verb, args *farrierv1.DeployArgs) (*node.Instance, error) {
	if verb == lifecycle.Rebuild && args == nil {
		return nil, nil
	}
	var out node.Instance
	if verb == lifecycle.Rebuild {
		out = n.Instance
	}
	if verb == lifecycle.Deploy || args.GetImage() != nil {
		url, sha, format, err := checkImage(args.GetImage())
		if err != nil {
			return nil, err
		}
		out.ImageURL, out.ImageSHA, out.ImageFmt = url, sha, format
	}
	if err := checkHints(args.GetRootDeviceHints()); err != nil {
		return nil, err
	}
	if err := checkHostname("deploy.hostname", args.GetHostname()); err != nil {
		return nil, err
	}
	if err := checkMap("deploy.meta_data", args.GetMetaData(), maxMetaData); err != nil {
		return nil, err
	}
	if len(args.GetRootDeviceHints()) > 0 {
		out.RootDeviceHints = maps.Clone(args.GetRootDeviceHints())
	}
	if args.GetHostname() != "" {
		out.Hostname = args.GetHostname()
	}
	if len(args.GetMetaData()) > 0 {
		out.MetaData = maps.Clone(args.GetMetaData())
	}
	return &out, r.sealData(n.ID, &out, args)
}

func (r *Reader) sealData(id node.ID, out *node.Instance, args *farrierv1.DeployArgs) (err error) {
	if err := checkBlob("deploy.user_data", args.GetUserData()); err != nil {
		return err
	}
	if err := checkNetworkData(args.GetNetworkData()); err != nil {
		return err
	}
	if data := args.GetUserData(); len(data) > 0 {
		if out.UserData, err = r.Seal(id, "user_data", data); err != nil {
			return err
		}
	}
	if data := args.GetNetworkData(); len(data) > 0 {
		out.NetworkData, err = r.Seal(id, "network_data", data)
	}
	return err
}

// checkImage checks an image and answers it with the digest in lower case.
func checkImage(img *farrierv1.Image) (url, sha, format string, err error) {
	if img == nil {
		return "", "", "", refusal.Invalid("deploy.image", "say which image to write: url, sha256 and format")
	}
	if err := checkURL("deploy.image.url", img.GetUrl()); err != nil {
		return "", "", "", err
	}
	sha = strings.ToLower(img.GetSha256())
	if !sha256RE.MatchString(sha) {
		return "", "", "", refusal.Invalid("deploy.image.sha256", "%q is not 64 hex digits", refusal.Clip(img.GetSha256())).
			WithHelp("give the SHA-256 of the file at the URL: sha256sum FILE")
	}
	switch img.GetFormat() {
	case "raw", "raw.gz", "raw.zst":
	case "":
		return "", "", "", refusal.Invalid("deploy.image.format", "say raw, raw.gz or raw.zst: formats are not guessed")
	default:
		return "", "", "", refusal.Invalid("deploy.image.format", "%q is not raw, raw.gz or raw.zst", refusal.Clip(img.GetFormat())).
			WithHelp("convert other formats first, for instance with qemu-img convert -O raw")
	}
	return img.GetUrl(), sha, img.GetFormat(), nil
}

// checkHints checks the root device hints.
func checkHints(hints map[string]string) error {
	for k, val := range hints {
		if err := hint.Check("deploy.root_device_hints.", k, val); err != nil {
			return err
		}
	}
	return nil
}

func checkBlob(field string, data []byte) error {
	if len(data) > maxBlob {
		return &fault.Error{Kind: fault.TooLarge, Op: field, Err: errSize(len(data)), Detail: &fault.FieldDetail{Field: field},
			Help: "put larger data behind a URL that the machine reads itself"}
	}
	return nil
}

type errSize int

func (n errSize) Error() string {
	return "it has " + strconv.Itoa(int(n)) + " bytes, at most " + strconv.Itoa(maxBlob) + " are allowed"
}

// checkNetworkData checks that network data is one JSON object of bounded depth.
func checkNetworkData(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if err := checkBlob("deploy.network_data", data); err != nil {
		return err
	}
	if depth(data) > 32 {
		return refusal.Invalid("deploy.network_data", "it is nested deeper than 32 levels")
	}
	var o map[string]json.RawMessage
	if err := json.Unmarshal(data, &o); err != nil {
		return refusal.Invalid("deploy.network_data", "it is not a JSON object: %w", err)
	}
	return nil
}

// depth counts the nesting of JSON without parsing it.
func depth(data []byte) (deepest int) {
	level, quoted, escaped := 0, false, false
	for _, b := range data {
		switch {
		case escaped:
			escaped = false
		case quoted:
			escaped = b == '\\'
			quoted = b != '"'
		case b == '"':
			quoted = true
		case b == '{' || b == '[':
			level++
			deepest = max(deepest, level)
		case b == '}' || b == ']':
			level--
		}
	}
	return deepest
}

// CleanSteps checks the steps of a manual clean; which exist is the flow's to say.
func CleanSteps(steps []*farrierv1.CleanStep) ([]command.CleanStep, error) {
	if len(steps) > maxCleanSteps {
		return nil, refusal.Invalid("clean_steps", "at most %d steps are allowed", maxCleanSteps)
	}
	out := make([]command.CleanStep, 0, len(steps))
	for i, s := range steps {
		field := "clean_steps[" + strconv.Itoa(i) + "]"
		if s.GetInterface() == "" || s.GetStep() == "" {
			return nil, refusal.Invalid(field, "say interface and step")
		}
		if err := checkMap(field+".args", s.GetArgs(), maxMap); err != nil {
			return nil, err
		}
		out = append(out, command.CleanStep{Interface: s.GetInterface(), Step: s.GetStep(), Args: s.GetArgs()})
	}
	return out, nil
}
