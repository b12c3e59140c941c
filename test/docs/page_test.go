package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// root is the checkout.
var root = filepath.Join("..", "..") // read-only

// kind says what a part of a page is.
type kind int

const (
	command kind = iota + 1 // to be run: a line of an sh block, or a span in the table of commands
	where                   // a comment in an sh block: where the next lines are run
	file                    // a yaml or ini block
	excerpt                 // a text block
	span                    // a code span: to be checked, not run
)

// part is one thing on a page that can be wrong.
type part struct {
	kind    kind
	line    int // in the page, from 1
	section string
	lang    string
	text    string
}

// pages are the documents, by path from the checkout.
func pages(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(all) == 0 {
		t.Fatal("no pages: ", err)
	}
	names := []string{"README.md"}
	for _, p := range all {
		names = append(names, filepath.Join("docs", filepath.Base(p)))
	}
	return names
}

// read takes a page apart.
func read(t *testing.T, name string) []part {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	p := &reader{t: t, name: name}
	for i, line := range strings.Split(string(b), "\n") {
		p.line(i+1, line)
	}
	if p.fence {
		t.Errorf("%s: the last block has no end", name)
	}
	return p.parts
}

type reader struct {
	t        *testing.T
	name     string
	parts    []part
	section  string
	fence    bool
	lang     string
	from     int
	block    []string
	commands bool // the table in which we are has a column "command"
	table    bool
}

var (
	spanRE = regexp.MustCompile("`([^`]+)`")
	// programRE matches what begins a command of ours.
	programRE = regexp.MustCompile(`^(bin/)?(farrier(-coordinator|-agent|-ramdisk)?|make)( |$)`)
)

func (p *reader) line(n int, line string) {
	text := strings.TrimSpace(line)
	switch {
	case strings.HasPrefix(text, "```") && !p.fence:
		p.fence, p.lang, p.from, p.block = true, strings.TrimPrefix(text, "```"), n+1, nil
	case strings.HasPrefix(text, "```"):
		p.fence = false
		p.end()
	case p.fence:
		p.block = append(p.block, strings.TrimPrefix(line, "  ")) // those in lists are indented
		if p.block[len(p.block)-1] == line || p.lang != "sh" {
			p.block[len(p.block)-1] = line
		}
	case strings.HasPrefix(line, "#"):
		p.section = strings.TrimSpace(strings.TrimLeft(line, "#"))
	default:
		p.prose(n, text)
		if strings.HasPrefix(line, "    ") && programRE.MatchString(text) {
			p.t.Errorf("%s:%d: put commands between fences: %s", p.name, n, text)
		}
	}
}

func (p *reader) add(k kind, n int, text string) {
	p.parts = append(p.parts, part{kind: k, line: n, section: p.section, lang: p.lang, text: text})
}

func (p *reader) prose(n int, text string) {
	inTable := strings.HasPrefix(text, "|")
	if inTable && !p.table {
		p.commands = strings.Contains(text, "| command |")
	}
	p.table = inTable
	p.lang = ""
	for _, m := range spanRE.FindAllStringSubmatch(text, -1) {
		switch {
		case !programRE.MatchString(m[1]):
		case inTable && p.commands:
			p.add(command, n, m[1])
		default:
			p.add(span, n, m[1])
		}
	}
}

// end is called with a whole block.
func (p *reader) end() {
	switch p.lang {
	case "sh":
		p.shell()
	case "yaml", "ini":
		p.add(file, p.from, strings.Join(p.block, "\n")+"\n")
	case "text":
		p.add(excerpt, p.from, strings.Join(p.block, "\n"))
	case "", "mermaid": // pictures
		for i, line := range p.block {
			if words := strings.Fields(line); programRE.MatchString(strings.TrimSpace(line)) && len(words) > 1 && !strings.HasPrefix(words[1], "(") {
				p.t.Errorf("%s:%d: a block with commands is to be marked sh: %s", p.name, p.from+i, line)
			}
		}
	default:
		p.t.Errorf("%s:%d: nothing here knows how to treat a block of %q", p.name, p.from, p.lang)
	}
}

// shell cuts a block into commands: continued lines are one, "a && b" are two.
func (p *reader) shell() {
	whole := ""
	for i, line := range p.block {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if comment, ok := strings.CutPrefix(line, "# "); ok {
			p.add(where, p.from+i, comment)
			continue
		}
		if begun, ok := strings.CutSuffix(line, `\`); ok {
			whole += begun
			continue
		}
		line = whole + line
		whole = ""
		line, _, _ = strings.Cut(line, "  #")
		line, _, _ = strings.Cut(line, " # ")
		for c := range strings.SplitSeq(line, "&&") {
			p.add(command, p.from+i, strings.TrimSpace(c))
		}
	}
	if whole != "" {
		p.t.Errorf("%s:%d: the last line goes on nowhere", p.name, p.from)
	}
}
