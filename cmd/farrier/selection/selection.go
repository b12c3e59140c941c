package selection

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Fields are what was asked for, in that order. The zero value asks for nothing in particular: all of it.
type Fields struct{ paths []path }

// path leads to a field of a thing; below a list it leads on into each of its items.
type path struct {
	names  []string
	sent   int  // so many of the names make the path of a mask, which ends at a list or a map
	moment bool // it ends at a time
}

// Parse reads the names of fields of a thing, as JSON has them: with dots those of a field's own fields, or the keys of a map.
// A name that is there twice counts once.
func Parse(thing protoreflect.MessageDescriptor, names []string) (Fields, error) {
	var f Fields
	for _, name := range names {
		p, err := parse(thing, strings.TrimSpace(name))
		if err != nil {
			return Fields{}, err
		}
		if !slices.ContainsFunc(f.paths, func(q path) bool { return slices.Equal(p.names, q.names) }) {
			f.paths = append(f.paths, p)
		}
	}
	return f, nil
}

func parse(d protoreflect.MessageDescriptor, name string) (path, error) {
	p := path{names: strings.Split(name, ".")}
	bounded := false
	for i, part := range p.names {
		if d == nil {
			return path{}, fault.New(fault.Invalid, "--fields", "%q has no fields of its own", strings.Join(p.names[:i], ".")).
				WithHelp("give --fields %s", strings.Join(p.names[:i], "."))
		}
		fd := d.Fields().ByName(protoreflect.Name(part))
		if fd == nil {
			of := ""
			if i > 0 {
				of = " of " + strings.Join(p.names[:i], ".")
			}
			return path{}, fault.New(fault.Invalid, "--fields", "there is no field %q%s", part, of).WithHelp("there are: %s", strings.Join(Names(d), ", "))
		}
		if !bounded {
			p.sent = i + 1
		}
		if fd.IsMap() {
			if i+1 < len(p.names) { // a key may have dots
				p.names = append(p.names[:i+1:i+1], strings.Join(p.names[i+1:], "."))
			}
			return p, nil
		}
		bounded = bounded || fd.IsList()
		d = fd.Message()
		if d != nil && d.ParentFile().Package() == "google.protobuf" { // JSON has it as one text
			p.moment, d = d.Name() == "Timestamp", nil
		}
	}
	return p, nil
}

// Names are the fields of a thing.
func Names(thing protoreflect.MessageDescriptor) (names []string) {
	for i := range thing.Fields().Len() {
		names = append(names, string(thing.Fields().Get(i).Name()))
	}
	return names
}

// All says that no field was named.
func (f Fields) All() bool { return len(f.paths) == 0 }

// Mask is the paths of a field mask that has all that the fields are made from; none if no field was named.
func (f Fields) Mask() (paths []string) {
	for _, p := range f.paths {
		paths = append(paths, strings.Join(p.names[:p.sent], "."))
	}
	return paths
}

// Header is the fields as they were named.
func (f Fields) Header() (names []string) {
	for _, p := range f.paths {
		names = append(names, strings.Join(p.names, "."))
	}
	return names
}

// Cells are the fields of a thing, decoded from JSON, as people read them.
func (f Fields) Cells(thing any) (cells []string) {
	for _, p := range f.paths {
		cells = append(cells, text(at(thing, p.names), p.moment))
	}
	return cells
}

// Pick is a thing, decoded from JSON, with these fields alone, where they were, in this order. Those that it does not have are
// left out.
func (f Fields) Pick(thing any) any {
	var paths [][]string
	for _, p := range f.paths {
		paths = append(paths, p.names)
	}
	return pick(thing, paths)
}

func pick(v any, paths [][]string) any {
	if slices.ContainsFunc(paths, func(p []string) bool { return len(p) == 0 }) {
		return v
	}
	switch v := v.(type) {
	case []any:
		items := make([]any, 0, len(v))
		for _, item := range v {
			items = append(items, pick(item, paths))
		}
		return items
	case map[string]any:
		var order []string
		tails := map[string][][]string{}
		for _, p := range paths {
			if tails[p[0]] == nil {
				order = append(order, p[0])
			}
			tails[p[0]] = append(tails[p[0]], p[1:])
		}
		out := object{}
		for _, name := range order {
			if inner, ok := v[name]; ok {
				out = append(out, member{name, pick(inner, tails[name])})
			}
		}
		return out
	default:
		return v
	}
}

func at(v any, names []string) any {
	if len(names) == 0 {
		return v
	}
	switch v := v.(type) {
	case []any:
		var items []any
		for _, item := range v {
			items = append(items, at(item, names))
		}
		return items
	case map[string]any:
		return at(v[names[0]], names[1:])
	default:
		return nil
	}
}

// text is a value in a cell: of a list its items, of a thing with fields those that have a value.
func text(v any, moment bool) string {
	switch v := v.(type) {
	case string:
		if at, err := time.Parse(time.RFC3339Nano, v); moment && err == nil {
			return at.Local().Format(time.DateTime)
		}
		return v
	case bool:
		return strconv.FormatBool(v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case []any:
		var items []string
		for _, item := range v {
			items = append(items, inside(item, moment))
		}
		return strings.Join(items, ", ")
	case map[string]any:
		var items []string
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if value := inside(v[name], false); value != "" && value != "{}" {
				items = append(items, name+"="+value)
			}
		}
		return strings.Join(items, ", ")
	default:
		return ""
	}
}

// inside is a value among others.
func inside(v any, moment bool) string {
	switch v.(type) {
	case map[string]any, []any:
		return "{" + text(v, moment) + "}"
	default:
		return text(v, moment)
	}
}
