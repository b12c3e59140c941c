package view

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
)

// screen is a terminal that wraps and scrolls, as far as Live needs one.
type screen struct {
	columns, rows int
	cells         [][]rune
	x, y          int
	scrolled      []string // lines that left at the top
}

func newScreen(columns, rows int) *screen {
	s := &screen{columns: columns, rows: rows}
	for range rows {
		s.cells = append(s.cells, nil)
	}
	return s
}

func (s *screen) size() (int, int) { return s.columns, s.rows }

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) {
	text := []rune(string(p))
	for i := 0; i < len(text); i++ {
		switch r := text[i]; {
		case r == '\n':
			s.newline()
		case r == 0x1b && i+1 < len(text) && text[i+1] == '[':
			end := i + 2
			for end < len(text) && (text[end] >= '0' && text[end] <= '9' || text[end] == ';') {
				end++
			}
			n, _ := strconv.Atoi(string(text[i+2 : end])) // no number is 0
			s.escape(text[end], n)
			i = end
		default:
			s.put(r)
		}
	}
	return len(p), nil
}

func (s *screen) put(r rune) {
	if s.x >= s.columns {
		s.newline()
	}
	for len(s.cells[s.y]) <= s.x {
		s.cells[s.y] = append(s.cells[s.y], ' ')
	}
	s.cells[s.y][s.x] = r
	s.x++
}

func (s *screen) newline() {
	s.x = 0
	if s.y++; s.y == s.rows {
		s.y--
		s.scrolled = append(s.scrolled, string(s.cells[0]))
		s.cells = append(s.cells[1:], nil)
	}
}

func (s *screen) escape(r rune, n int) {
	switch r {
	case 'A':
		s.y = max(s.y-n, 0)
	case 'K':
		s.cells[s.y] = nil
	case 'J':
		s.cells[s.y] = s.cells[s.y][:min(s.x, len(s.cells[s.y]))]
		for i := s.y + 1; i < s.rows; i++ {
			s.cells[i] = nil
		}
	case 'm':
	default:
		panic(fmt.Sprintf("the screen does not know escape %q", r))
	}
}

func (s *screen) lines() []string {
	out := append([]string(nil), s.scrolled...)
	for _, c := range s.cells {
		out = append(out, strings.TrimRight(string(c), " "))
	}
	for len(out) > 0 && out[len(out)-1] == "" {
		out = out[:len(out)-1]
	}
	return out
}

func deployOf(steps int, current int) *farrierv1.Node {
	f := &farrierv1.Flow{Id: 1, Kind: "deploy", State: "open", Current: uint32(current)}
	for i := range steps {
		st := &farrierv1.Step{Interface: "deploy", Name: fmt.Sprintf("step_%d", i), State: "pending"}
		switch {
		case i < current:
			st.State = "done"
		case i == current:
			st.Name, st.State, st.Attempt = "write_image", "running", 2
		}
		f.Steps = append(f.Steps, st)
	}
	f.Working = f.Steps[current]
	return &farrierv1.Node{Id: "1", Name: "web-1", ProvisionState: "deploying", Agent: "a", Flow: f}
}

// TestEachRedrawLeftALine: lines that were wider than the terminal wrapped, and the picture counted newlines.
func TestEachRedrawLeftALine(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {40, 10}, {200, 60}} {
		for _, steps := range []int{3, 40} {
			t.Run(fmt.Sprintf("%dx%d, %d steps", size[0], size[1], steps), func(t *testing.T) {
				s := newScreen(size[0], size[1])
				l := Live{Out: s, TTY: true, Color: true, Now: time.Now, Size: s.size}
				n := deployOf(steps, steps/2)
				for i := range 100 {
					n.Flow.Steps[steps/2].Progress = &farrierv1.Progress{Done: uint64(i) << 20, Total: 256 << 20, Rate: 64 << 20, Skipped: 1 << 20}
					l.Show(n)
				}
				n.Flow.Steps[steps/2].Error = strings.Repeat("a long error ", 20)
				n.LastError = n.Flow.Steps[steps/2].Error
				n.Maintenance, n.MaintenanceReason = true, "cabling"
				l.Show(n)
				l.Note("the coordinators do not answer")
				lines := s.lines()
				if len(s.scrolled) != 0 || len(lines) > size[1]-1 || strings.Count(strings.Join(lines, "\n"), "web-1") != 1 {
					t.Errorf("the screen is\n%s", strings.Join(lines, "\n"))
				}
				picture := strings.Join(lines, "\n")
				for _, want := range []string{"deploying", "write_image", "paused: maintenance (cabling)", "do not answer"} {
					if !strings.Contains(picture, want) {
						t.Errorf("it does not show %q:\n%s", want, picture)
					}
				}
				l.Show(n)
				if strings.Contains(strings.Join(s.lines(), "\n"), "do not answer") {
					t.Error("the note stays")
				}
			})
		}
	}
}

func TestTheNextFlowIsDrawnBelow(t *testing.T) {
	s := newScreen(80, 24)
	l := Live{Out: s, TTY: true, Now: time.Now, Size: s.size}
	n := deployOf(2, 1)
	l.Show(n)
	next := deployOf(1, 0)
	next.Flow.Id, next.Flow.Kind = 2, "clean"
	l.Show(next)
	l.Show(next)
	if lines := s.lines(); len(lines) != 5 || !strings.Contains(lines[0], "deploy") || !strings.Contains(lines[3], "clean") {
		t.Errorf("the screen is\n%s", strings.Join(lines, "\n"))
	}
}

func TestALineIsCutToTheTerminal(t *testing.T) {
	for _, c := range []struct {
		ln      line
		columns int
		want    string
	}{
		{line{{"", "abc"}}, 3, "abc"},
		{line{{"", "abcd"}}, 3, "ab…"},
		{line{{"", "ab"}, {"", "cd"}}, 3, "ab…"},
		{line{{"", "ab"}, {"", "cd"}}, 4, "abcd"},
		{line{{"", "日本語"}}, 5, "日本…"},
		{line{{"", "日本語"}}, 4, "日…"},
	} {
		if got := c.ln.render(Printer{}, c.columns); got != c.want {
			t.Errorf("%v in %d: %q instead of %q", c.ln, c.columns, got, c.want)
		}
	}
}
