package boot

import (
	"fmt"
	"strings"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Arg is one argument of a kernel command line. Values that would change the meaning of an iPXE script, or of the
// command line, cannot be made: see ParseArg.
type Arg struct{ key, value string }

// maxArg bounds one argument, in bytes.
const maxArg = 1024

// ParseArg reads "key" or "key=value". The key is letters, digits, '.', '_' and '-'; the value is printable ASCII
// without space, quote, '$', '{', '}', '\\', '#', ';', '&', '|', '<', '>' and '`'. So an argument can neither end
// the line it stands on, nor be expanded by iPXE, nor be read as two.
func ParseArg(text string) (Arg, error) {
	key, value, _ := strings.Cut(text, "=")
	if key == "" || len(text) > maxArg {
		return Arg{}, badArg(text)
	}
	for _, c := range []byte(key) {
		if !isAlnum(c) && c != '.' && c != '_' && c != '-' {
			return Arg{}, badArg(text)
		}
	}
	for _, c := range []byte(value) {
		if c <= ' ' || c > '~' || strings.IndexByte("\"'$`\\{}#;&|<>", c) >= 0 {
			return Arg{}, badArg(text)
		}
	}
	if strings.Contains(text, "=") && value == "" {
		return Arg{key: key + "="}, nil
	}
	return Arg{key: key, value: value}, nil
}

// ParseArgs reads a list of arguments, as the configuration holds them.
func ParseArgs(texts []string) ([]Arg, error) {
	args := make([]Arg, 0, len(texts))
	for _, t := range texts {
		a, err := ParseArg(t)
		if err != nil {
			return nil, err
		}
		args = append(args, a)
	}
	return args, nil
}

func badArg(text string) error {
	if len(text) > 64 {
		text = text[:64] + "..."
	}
	return fault.New(fault.Invalid, "kernel argument", "%q is not a plain key=value", text).
		WithHelp("use letters, digits, '.', '_' and '-' in the key, and no space, quote or shell character in the value")
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// String is the argument as it stands on the command line.
func (a Arg) String() string {
	if a.value == "" {
		return a.key
	}
	return fmt.Sprintf("%s=%s", a.key, a.value)
}
