package hint

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Condition is what a hint's value asks of a disk: that it is equal, or what an operator before it says. The operators are those of
// Ironic's root device hints, each a word of its own: of texts s==, s!=, <in> (is part of it), <all-in> (all these words are),
// <or> (before each of several texts that may be it); of sizes =, ==, !=, <, <=, >, >=, where = means >=, as in Ironic, and <or>.
type Condition struct {
	hint  Hint
	op    string
	texts []string
	sizes []int64 // GiB
}

const (
	is    = ""
	in    = "<in>"
	allIn = "<all-in>"
	or    = "<or>"
)

var (
	textOps = []string{"s==", "s!=", in, allIn, or}                  // read-only
	sizeOps = []string{"=", "==", "!=", "<", "<=", ">", ">=", or}    // read-only
	others  = []string{"s<", "s<=", "s>", "s>=", "<range-in>", "->"} // read-only; operators that no hint has
)

// Parse reads one hint and its value. The error is fault.Invalid and names field.
func Parse(field, name, value string) (Condition, error) {
	bad := func(text string, args ...any) (Condition, error) {
		return Condition{}, fault.New(fault.Invalid, "check root device hints", "hint %.40s: "+text, append([]any{name}, args...)...).
			WithDetail(&fault.FieldDetail{Field: field + name})
	}
	c := Condition{hint: Hint(name)}
	if !slices.Contains(All(), c.hint) {
		return Condition{}, fault.New(fault.Invalid, "check root device hints", "there is no hint %.40q", name).
			WithDetail(&fault.FieldDetail{Field: field + name}).WithHelp("the hints are %s", List())
	}
	ops := c.hint.operators()
	rest := value
	if word, after, _ := strings.Cut(strings.TrimSpace(value), " "); slices.Contains(textOps, word) || slices.Contains(sizeOps, word) || slices.Contains(others, word) {
		if !slices.Contains(ops, word) {
			return bad("it has no operator %s; %s", word, offered(ops))
		}
		c.op, rest = word, strings.TrimSpace(after)
	}
	c.texts = []string{rest}
	switch c.op {
	case or:
		c.texts = strings.Split(rest, or)
	case allIn:
		c.texts = strings.Fields(rest)
	}
	for i, t := range c.texts {
		if c.op != is {
			t = strings.TrimSpace(t)
		}
		switch {
		case c.hint == Rotational && t != "true" && t != "false":
			return bad("%.40q is not true or false", t)
		case c.hint.size():
			n, ok := giB(t)
			if !ok || n == 0 {
				return bad("%.40q is not a number of GiB", t)
			}
			c.sizes = append(c.sizes, n)
		case t == "" || len(value) > MaxText || !utf8.ValidString(t) || strings.ContainsFunc(t, func(r rune) bool { return r < ' ' }):
			return bad("it is not a text of 1 to %d bytes", MaxText)
		}
		c.texts[i] = c.hint.plain(t)
	}
	if len(c.texts) == 0 {
		return bad("nothing stands behind %s", c.op)
	}
	return c, nil
}

// Check is Parse for who only wants to know.
func Check(field, name, value string) error {
	_, err := Parse(field, name, value)
	return err
}

func offered(ops []string) string {
	if len(ops) == 0 {
		return "write the value alone"
	}
	return "those it has are " + strings.Join(ops, ", ") + ", or write the value alone"
}

func (h Hint) size() bool { return h == Size || h == MinSizeGiB }

func (h Hint) operators() []string {
	switch h {
	case Size:
		return sizeOps
	case MinSizeGiB, Rotational:
		return nil
	default:
		return textOps
	}
}

// plain is a text as it is compared.
func (h Hint) plain(text string) string {
	switch h {
	case ID, ByPath:
		return text
	case Name:
		return strings.TrimPrefix(text, "/dev/")
	case WWN:
		return strings.TrimPrefix(strings.ToLower(text), "0x")
	default:
		return strings.ToLower(text)
	}
}

// Text tells whether a disk that goes by these texts is wanted. Each of them counts, an empty one only if there is no other.
func (c Condition) Text(have ...string) bool {
	var texts []string
	for _, h := range have {
		if h != "" {
			texts = append(texts, c.hint.plain(h))
		}
	}
	if len(texts) == 0 {
		texts = []string{""}
	}
	is := func(want string) bool { return slices.Contains(texts, want) }
	within := func(want string) bool {
		return slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(t, want) })
	}
	switch c.op {
	case "s!=":
		return !is(c.texts[0])
	case in:
		return within(c.texts[0])
	case allIn:
		return !slices.ContainsFunc(c.texts, func(want string) bool { return !within(want) })
	default: // one of them, of which there is one but for <or>
		return slices.ContainsFunc(c.texts, is)
	}
}

// GiB tells whether a disk of that size, rounded down, is wanted.
func (c Condition) GiB(n int64) bool {
	want := c.sizes[0]
	switch {
	case c.hint == MinSizeGiB, c.op == "=", c.op == ">=":
		return n >= want
	case c.op == ">":
		return n > want
	case c.op == "<":
		return n < want
	case c.op == "<=":
		return n <= want
	case c.op == "!=":
		return n != want
	default:
		return slices.Contains(c.sizes, n)
	}
}

// giB reads a size.
func giB(value string) (int64, bool) {
	n, err := strconv.ParseInt(value, 10, 64)
	return n, err == nil && n >= 0 && n <= maxGiB
}
