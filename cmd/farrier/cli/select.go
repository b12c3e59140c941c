package cli

import (
	"cmp"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/farrier-project/farrier/cmd/farrier/selection"
	"github.com/farrier-project/farrier/cmd/farrier/view"
)

// choose adds --fields to a command that shows such things, and reads it.
func choose(c *cobra.Command, thing proto.Message, such string) func() (selection.Fields, error) {
	d := thing.ProtoReflect().Descriptor()
	names := c.Flags().StringSlice("fields", nil, "only these fields, in this order, named as in -o json, such as "+such)
	_ = c.RegisterFlagCompletionFunc("fields", oneOf(selection.Names(d), true)) // it fails only for a flag that is not there, or has one
	return func() (selection.Fields, error) { return selection.Parse(d, *names) }
}

// maskOf has the coordinators send what the fields are made from, and no more.
func maskOf(f selection.Fields) *fieldmaskpb.FieldMask {
	return &fieldmaskpb.FieldMask{Paths: f.Mask()} // without a path it keeps all
}

// things writes an answer that holds things in a list: as table draws it, or only those fields of each that were asked for.
func (s *session) things(f selection.Fields, answer proto.Message, list string, table func()) error {
	if f.All() {
		return s.Message(answer, table)
	}
	plain, err := view.Plain(answer)
	if err != nil {
		return err
	}
	whole, _ := plain.(map[string]any)
	items, _ := whole[list].([]any)
	if s.Format != view.Table {
		whole[list] = f.Pick(items)
		return s.Value(whole)
	}
	var head []string
	for _, name := range f.Header() {
		head = append(head, strings.ToUpper(name))
	}
	var rows [][]string
	for _, item := range items {
		rows = append(rows, f.Cells(item))
	}
	s.Rows(head, rows)
	return nil
}

// thing is things for an answer that is one thing. A field without a value is there too, as it was asked for.
func (s *session) thing(f selection.Fields, answer proto.Message, table func()) error {
	if f.All() {
		return s.Message(answer, table)
	}
	plain, err := view.Plain(answer)
	if err != nil {
		return err
	}
	if s.Format != view.Table {
		return s.Value(f.Pick(plain))
	}
	var pairs [][2]string
	cells := f.Cells(plain)
	for i, name := range f.Header() {
		pairs = append(pairs, [2]string{name, cmp.Or(cells[i], "-")})
	}
	s.Pairs(pairs)
	return nil
}
