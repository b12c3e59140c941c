package view

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Format is how answers are written.
type Format string

// The formats.
const (
	Table Format = "table"
	JSON  Format = "json"
	YAML  Format = "yaml"
)

// ParseFormat reads the value of -o.
func ParseFormat(text string) (Format, error) {
	switch f := Format(text); f {
	case Table, JSON, YAML:
		return f, nil
	default:
		return "", fault.New(fault.Invalid, "output format", "%q is not table, json or yaml", text).WithHelp("give -o table, -o json or -o yaml")
	}
}

// Printer writes answers in one format.
type Printer struct {
	Out    io.Writer
	Format Format
	Color  bool
}

// Message writes a message: as JSON or YAML, or with table if the format is Table.
func (p Printer) Message(m proto.Message, table func()) error {
	if p.Format == Table {
		table()
		return nil
	}
	v, err := Plain(m)
	if err != nil {
		return err
	}
	return p.Value(v)
}

// Value writes what JSON has a form for: as YAML if that is the format, else as JSON.
func (p Printer) Value(v any) error {
	if p.Format == YAML {
		enc := yaml.NewEncoder(p.Out)
		enc.SetIndent(2)
		if err := enc.Encode(v); err != nil {
			return fault.Wrap("write answer", err)
		}
		return fault.Wrap("write answer", enc.Close())
	}
	enc := json.NewEncoder(p.Out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return fault.Wrap("write answer", enc.Encode(v))
}

// Plain is a message as JSON has it. Every field is there that has a value by itself, so that a program finds an empty list, a
// zero and a false where it looks for them. A message that is absent is left out.
func Plain(m proto.Message) (any, error) {
	raw, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, fault.Wrap("write answer", err)
	}
	var v any // protojson varies its white space on purpose: it is decoded, to be written again
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, fault.Wrap("write answer", err)
	}
	return v, nil
}

// Line writes one JSON object on one line, whatever the format but Table: for streams.
func (p Printer) Line(m proto.Message) error {
	v, err := Plain(m)
	if err != nil {
		return err
	}
	if p.Format == YAML {
		out, err := yaml.Marshal(v)
		if err != nil {
			return fault.Wrap("write answer", err)
		}
		_, err = fmt.Fprintf(p.Out, "---\n%s", out)
		return err
	}
	return json.NewEncoder(p.Out).Encode(v)
}

// Rows writes a table with aligned columns. Control characters in cells are escaped: names and errors come from
// elsewhere.
func (p Printer) Rows(header []string, rows [][]string) {
	widths := make([]int, len(header))
	for i, h := range header {
		widths[i] = len(h)
	}
	for _, r := range rows {
		for i := range r {
			r[i] = Clean(r[i])
			widths[i] = max(widths[i], utf8.RuneCountInString(r[i]))
		}
	}
	write := func(cells []string, style func(string) string) {
		var b strings.Builder
		for i, c := range cells {
			pad := ""
			if i < len(cells)-1 {
				pad = strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c)+2)
			}
			b.WriteString(style(c))
			b.WriteString(pad)
		}
		fmt.Fprintln(p.Out, strings.TrimRight(b.String(), " "))
	}
	write(header, func(s string) string { return p.paint(bold, s) })
	for _, r := range rows {
		write(r, p.State)
	}
}

// Pairs writes names and values, one a line; empty values are left out.
func (p Printer) Pairs(pairs [][2]string) {
	width := 0
	for _, kv := range pairs {
		if kv[1] != "" {
			width = max(width, len(kv[0]))
		}
	}
	for _, kv := range pairs {
		if kv[1] != "" {
			fmt.Fprintf(p.Out, "%-*s  %s\n", width, kv[0], p.State(Clean(kv[1])))
		}
	}
}

// Clean makes text from elsewhere safe for a terminal: control characters are shown as escapes.
func Clean(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 {
			fmt.Fprintf(&b, "\\x%02x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

const (
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
	dim    = "2"
)

func (p Printer) paint(code, s string) string {
	if !p.Color || s == "" || code == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// State colours a word that says how something stands.
func (p Printer) State(s string) string { return p.paint(stateColor(s), s) }

func stateColor(s string) string {
	switch {
	case s == "active" || s == "available" || s == "live" || s == "done":
		return green
	case strings.HasSuffix(s, " failed") || s == "error" || s == "dead" || s == "failed":
		return red
	case s == "deploying" || s == "cleaning" || s == "wait call-back" || s == "clean wait" || s == "verifying" || s == "inspecting" || s == "inspect wait" ||
		s == "deleting" || s == "draining" || s == "running":
		return yellow
	default:
		return ""
	}
}

// Title is what people call a node: its name, or its id if it has none.
func Title(n *farrierv1.Node) string {
	if n.GetName() != "" {
		return n.GetName()
	}
	return n.GetId()
}
