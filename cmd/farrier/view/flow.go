package view

import (
	"fmt"
	"io"
	"strings"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
)

// Live draws a node's flow while it runs: on a terminal the step list is redrawn in place, elsewhere each change is one
// line. It is not safe for concurrent use.
type Live struct {
	Out   io.Writer
	TTY   bool
	Color bool
	Now   func() time.Time

	lines   int    // drawn last, to be overwritten
	last    string // what was said last, without a terminal
	flow    uint64
	started map[uint32]time.Time
}

// Show draws the node.
func (l *Live) Show(n *farrierv1.Node) {
	f := n.GetFlow()
	if f.GetId() != l.flow {
		l.flow, l.lines, l.started = f.GetId(), 0, map[uint32]time.Time{}
	}
	if cur := f.GetCurrent(); l.started[cur].IsZero() && l.started != nil {
		l.started[cur] = l.Now()
	}
	if l.TTY {
		l.draw(n)
	} else {
		l.say(n)
	}
}

func (l *Live) say(n *farrierv1.Node) {
	f := n.GetFlow()
	step := ""
	if f.GetState() == "open" && int(f.GetCurrent()) < len(f.GetSteps()) {
		s := f.GetSteps()[f.GetCurrent()]
		step = fmt.Sprintf("%s.%s", s.GetInterface(), s.GetName())
		if s.GetAttempt() > 1 {
			step += fmt.Sprintf(" (attempt %d)", s.GetAttempt())
		}
	}
	text := strings.TrimSpace(fmt.Sprintf("%s  %s", n.GetProvisionState(), step))
	if text == l.last {
		return
	}
	l.last = text
	fmt.Fprintf(l.Out, "%s  %s  %s\n", l.Now().Format(time.TimeOnly), Clean(label(n)), text)
}

func (l *Live) draw(n *farrierv1.Node) {
	p := Printer{Out: l.Out, Color: l.Color}
	f := n.GetFlow()
	var b strings.Builder
	if l.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", l.lines)
	}
	lines := 0
	put := func(s string) { b.WriteString("\x1b[2K" + s + "\n"); lines++ }
	put(fmt.Sprintf("%s  %s  %s", p.paint(bold, Clean(label(n))), p.State(n.GetProvisionState()), p.paint(dim, f.GetKind())))
	for i, s := range f.GetSteps() {
		put(l.step(p, f, uint32(i), s))
	}
	b.WriteString("\x1b[J")
	l.lines = lines
	io.WriteString(l.Out, b.String())
}

func (l *Live) step(p Printer, f *farrierv1.Flow, i uint32, s *farrierv1.Step) string {
	mark := map[string]string{"done": p.paint(green, "✔"), "failed": p.paint(red, "✘"), "running": p.paint(yellow, "▸"), "skipped": "-", "aborted": p.paint(red, "■")}[s.GetState()]
	if mark == "" {
		mark = p.paint(dim, "·")
	}
	text := fmt.Sprintf("  %s %-34s", mark, s.GetInterface()+"."+s.GetName())
	switch {
	case s.GetState() == "running":
		if s.GetAttempt() > 1 {
			text += fmt.Sprintf(" attempt %d", s.GetAttempt())
		}
		text += " " + Bar(s.GetProgress())
	case s.GetEndedAt() != nil && s.GetStartedAt() != nil:
		text += p.paint(dim, fmt.Sprintf(" %.1fs", s.GetEndedAt().AsTime().Sub(s.GetStartedAt().AsTime()).Seconds()))
	}
	if s.GetError() != "" {
		text += " " + p.paint(red, Clean(s.GetError()))
	}
	return text
}

// Bar is a progress bar with bytes, rate and time left; empty without progress.
func Bar(pr *farrierv1.Progress) string {
	if pr == nil || pr.GetTotal() == 0 {
		return pr.GetText()
	}
	const width = 24
	full := int(width * min(pr.GetDone(), pr.GetTotal()) / pr.GetTotal())
	text := fmt.Sprintf("[%s%s] %3d%%  %s of %s", strings.Repeat("█", full), strings.Repeat("░", width-full),
		100*min(pr.GetDone(), pr.GetTotal())/pr.GetTotal(), Bytes(pr.GetDone()), Bytes(pr.GetTotal()))
	if r := pr.GetRate(); r > 0 {
		left := time.Duration(float64(pr.GetTotal()-min(pr.GetDone(), pr.GetTotal())) / float64(r) * float64(time.Second))
		text += fmt.Sprintf("  %s/s  %s left", Bytes(r), left.Round(time.Second))
	}
	if pr.GetSkipped() > 0 {
		text += fmt.Sprintf("  (%s in place or zero)", Bytes(pr.GetSkipped()))
	}
	return text
}

// Bytes is a count of bytes in binary units.
func Bytes(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, exp := float64(n)/unit, 0
	for value >= unit && exp < 4 {
		value /= unit
		exp++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTP"[exp])
}

func label(n *farrierv1.Node) string {
	if n.GetName() != "" {
		return n.GetName()
	}
	return n.GetId()
}
