package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/farrier-project/farrier/cmd/farrier/cli"
	"github.com/farrier-project/farrier/cmd/farrier/demo"
)

// adviceRE matches a command of the command line inside a text: words and flags, up to what is an argument.
var adviceRE = regexp.MustCompile(`\bfarrier (node|port|lock|ring|agent|event|coordinator|setting|operator|demo)\b((?: --?[a-z-]+| [a-z-]+)*)`)

// TestAdviceNamesCommands: what errors and texts in the code tell people to type is a command, with flags that it has.
// "farrier node maintenance off" was none.
func TestAdviceNamesCommands(t *testing.T) {
	found := 0
	for _, part := range []string{"agent", "cmd", "coordinator", "pkg", "ramdisk-agent"} {
		err := filepath.WalkDir(filepath.Join(root, part), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files := token.NewFileSet()
			f, err := parser.ParseFile(files, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				lit, ok := n.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					return true
				}
				text, err := strconv.Unquote(lit.Value)
				if err != nil {
					return true
				}
				for _, m := range adviceRE.FindAllStringSubmatch(text, -1) {
					found++
					if why := advised(append([]string{m[1]}, strings.Fields(m[2])...)); why != "" {
						t.Errorf("%s: %q: %s", files.Position(lit.Pos()), m[0], why)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found == 0 {
		t.Error("no advice was found: is this test looking where it is?")
	}
}

// advised tells what is wrong with a command, or nothing. Words after a whole command are its arguments, or the text's.
func advised(args []string) string {
	root := cli.New("", nil, io.Discard, io.Discard)
	root.AddCommand(demo.Command())
	c, rest, err := root.Find(args)
	switch {
	case err != nil:
		return err.Error()
	case c.HasSubCommands() && len(rest) > 0:
		return "there is no command " + rest[0]
	}
	for _, word := range rest {
		if name, ok := strings.CutPrefix(word, "--"); ok && name != "help" && c.Flags().Lookup(name) == nil && c.InheritedFlags().Lookup(name) == nil {
			return "there is no flag " + word
		}
	}
	return ""
}
