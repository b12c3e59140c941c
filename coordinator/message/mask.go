package message

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/farrier-project/farrier/coordinator/refusal"
)

// Keep drops every field of m that the mask does not name. An absent or empty mask keeps all.
func Keep(m proto.Message, mask *fieldmaskpb.FieldMask) error {
	if len(mask.GetPaths()) == 0 {
		return nil
	}
	tree := maskTree{}
	for _, p := range mask.GetPaths() {
		if err := tree.add(m.ProtoReflect().Descriptor(), p); err != nil {
			return err
		}
	}
	tree.keep(m.ProtoReflect())
	return nil
}

// maskTree holds the named fields; an empty subtree keeps the whole field.
type maskTree map[protoreflect.Name]maskTree

func (t maskTree) add(d protoreflect.MessageDescriptor, path string) error {
	head, rest, deeper := strings.Cut(path, ".")
	f := d.Fields().ByName(protoreflect.Name(head))
	if f == nil {
		return refusal.Invalid("mask", "there is no field %q in %s", refusal.Clip(head), d.Name())
	}
	sub, seen := t[f.Name()]
	if !deeper {
		t[f.Name()] = maskTree{}
		return nil
	}
	if f.Message() == nil || f.IsMap() || f.IsList() {
		return refusal.Invalid("mask", "%q has no fields of its own", refusal.Clip(head))
	}
	if seen && len(sub) == 0 {
		return nil // the whole field is named already
	}
	if sub == nil {
		sub = maskTree{}
		t[f.Name()] = sub
	}
	return sub.add(f.Message(), rest)
}

func (t maskTree) keep(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		sub, ok := t[f.Name()]
		switch {
		case !ok:
			m.Clear(f)
		case len(sub) > 0:
			sub.keep(v.Message())
		}
		return true
	})
}
