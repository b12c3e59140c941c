package view

import (
	"fmt"
	"io"
	"strings"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
)

// The size of a terminal that does not say it, in characters.
const (
	defaultColumns = 80
	defaultRows    = 24
)

// sayEvery is how often progress is told where there is no terminal.
const sayEvery = 10 * time.Second

// Live draws nodes' flows while they run: on a terminal the step list of one node is redrawn in place, elsewhere, and for
// several nodes, each change is one line. It is not safe for concurrent use.
type Live struct {
	Out   io.Writer
	TTY   bool // draw in place
	Color bool
	Now   func() time.Time
	// Size is the terminal's size now, in characters; nil, or zeros: 80 by 24. Nothing is drawn beyond it: a line that
	// wraps, or one that has scrolled away, could not be overwritten.
	Size func() (columns, rows int)

	lines int // drawn last, to be overwritten
	node  *farrierv1.Node
	flow  uint64          // drawn last
	said  map[string]said // by node
}

// said is what was told of a node last, without a terminal.
type said struct {
	text string
	at   time.Time
}

// Show draws the node.
func (l *Live) Show(n *farrierv1.Node) {
	if l.TTY {
		l.draw(n, "")
	} else {
		l.say(n)
	}
}

// Note tells something that is no node's. On a terminal it stands below the picture until the next Show.
func (l *Live) Note(text string) {
	if l.TTY && l.node != nil {
		l.draw(l.node, Clean(text))
	} else {
		fmt.Fprintf(l.Out, "%s  %s\n", l.Now().Format(time.TimeOnly), Clean(text))
	}
}

func (l *Live) say(n *farrierv1.Node) {
	f := n.GetFlow()
	text := n.GetProvisionState()
	st := f.GetWorking()
	if st != nil {
		text += "  " + st.GetInterface() + "." + st.GetName()
		if st.GetAttempt() > 1 {
			text += fmt.Sprintf(" (attempt %d)", st.GetAttempt())
		}
	}
	for _, why := range Waits(n) {
		text += "  " + why
	}
	if st == nil && n.GetLastError() != "" {
		text += "  " + n.GetLastError()
	}
	if l.said == nil {
		l.said = map[string]said{}
	}
	last := l.said[n.GetId()]
	if text == last.text {
		if st.GetProgress().GetTotal() == 0 || l.Now().Sub(last.at) < sayEvery {
			return
		}
		text += "  " + strings.Join(amounts(st.GetProgress()), "  ")
	} else {
		last.text = text
	}
	last.at = l.Now()
	l.said[n.GetId()] = last
	fmt.Fprintf(l.Out, "%s  %s  %s\n", l.Now().Format(time.TimeOnly), Clean(label(n)), Clean(text))
}

// Waits says why work on the node does not go on by itself, if that is so.
func Waits(n *farrierv1.Node) []string {
	f := n.GetFlow()
	if f.GetState() != "open" {
		return nil
	}
	var out []string
	if n.GetMaintenance() {
		why := "paused: maintenance"
		if n.GetFault() != "" {
			why += ", " + n.GetFault()
		}
		if n.GetMaintenanceReason() != "" {
			why += " (" + n.GetMaintenanceReason() + ")"
		}
		out = append(out, why)
	}
	if f.GetQueued() {
		out = append(out, "queued: the limit of open flows is reached")
	}
	if n.GetAgent() == "" {
		out = append(out, "waits: no live agent of its group has its hardware type")
	}
	if f.GetAbortRequested() {
		out = append(out, "abort asked for: it takes effect at the step's end")
	}
	return out
}

func (l *Live) size() (columns, rows int) {
	if l.Size != nil {
		columns, rows = l.Size()
	}
	if columns <= 0 {
		columns = defaultColumns
	}
	if rows <= 0 {
		rows = defaultRows
	}
	return columns, rows
}

// draw overwrites the picture of before. The last column and the last row stay free: what is written there wraps or
// scrolls on some terminals.
func (l *Live) draw(n *farrierv1.Node, note string) {
	columns, rows := l.size()
	f := n.GetFlow()
	if f.GetId() != l.flow { // the picture of the earlier flow stays
		l.lines = 0
	}
	l.node, l.flow = n, f.GetId()
	var head, foot, steps []line
	head = append(head, line{{bold, Clean(label(n))}, {"", "  "}, {stateColor(n.GetProvisionState()), n.GetProvisionState()}, {"", "  "}, {dim, f.GetKind()}})
	if f.GetId() == 0 || f.GetState() != "open" {
		head[0] = append(head[0], span{"", " " + f.GetState()}, span{"", "  " + n.GetPowerState()})
	}
	for _, why := range Waits(n) {
		foot = append(foot, line{{yellow, "  " + Clean(why)}})
	}
	if n.GetLastError() != "" && f.GetState() != "open" {
		foot = append(foot, line{{red, "  " + Clean(n.GetLastError())}})
	}
	if note != "" {
		foot = append(foot, line{{yellow, "  " + note}})
	}
	for _, st := range f.GetSteps() {
		steps = append(steps, stepLine(st, columns-1, nameWidth(f)))
	}
	picture := append(append(head, window(steps, int(f.GetCurrent()), rows-1-len(head)-len(foot))...), foot...)
	if len(picture) > rows-1 {
		picture = picture[:max(rows-1, 1)]
	}
	var b strings.Builder
	if l.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", l.lines)
	}
	for _, ln := range picture {
		b.WriteString("\x1b[2K" + ln.render(Printer{Color: l.Color}, columns-1) + "\n")
	}
	b.WriteString("\x1b[J")
	l.lines = len(picture)
	_, _ = io.WriteString(l.Out, b.String()) // a terminal that is gone is told nothing
}

// window is the part of the steps around the current one that fits, with how many are left out above and below.
func window(steps []line, current, room int) []line {
	if len(steps) <= room {
		return steps
	}
	if room < 3 {
		return steps[:0]
	}
	from := max(0, min(current-room/2, len(steps)-room))
	out := append([]line(nil), steps[from:from+room]...)
	if from > 0 {
		out[0] = line{{dim, fmt.Sprintf("  … %d steps before", from+1)}}
	}
	if to := from + room; to < len(steps) {
		out[room-1] = line{{dim, fmt.Sprintf("  … %d steps after", len(steps)-to+1)}}
	}
	return out
}

// nameWidth is the width of the column of step names.
func nameWidth(f *farrierv1.Flow) int {
	width := 0
	for _, st := range f.GetSteps() {
		width = max(width, len(st.GetInterface())+1+len(st.GetName()))
	}
	return min(width, 34)
}

func stepLine(s *farrierv1.Step, columns, width int) line {
	mark := map[string]span{"done": {green, "✔"}, "failed": {red, "✘"}, "running": {yellow, "▸"}, "skipped": {"", "-"}, "aborted": {red, "■"}}[s.GetState()]
	if mark.text == "" {
		mark = span{dim, "·"}
	}
	ln := line{{"", "  "}, mark, {"", fmt.Sprintf(" %-*s", width, s.GetInterface()+"."+s.GetName())}}
	switch {
	case s.GetState() == "running":
		if s.GetAttempt() > 1 {
			ln = append(ln, span{"", fmt.Sprintf(" attempt %d", s.GetAttempt())})
		}
		ln = append(ln, span{"", " " + Bar(s.GetProgress(), columns-ln.width()-1)})
	case s.GetEndedAt() != nil && s.GetStartedAt() != nil:
		ln = append(ln, span{dim, fmt.Sprintf(" %.1fs", s.GetEndedAt().AsTime().Sub(s.GetStartedAt().AsTime()).Seconds())})
	}
	if s.GetError() != "" {
		ln = append(ln, span{red, " " + Clean(s.GetError())})
	}
	return ln
}

// Bar is a progress bar with bytes, rate and time left, as much of it as there is room for, in characters; empty without
// progress.
func Bar(pr *farrierv1.Progress, room int) string {
	if pr == nil || pr.GetTotal() == 0 {
		return pr.GetText()
	}
	parts := amounts(pr)
	bar := ""
	for keep := len(parts); keep > 0; keep-- {
		for _, width := range []int{24, 12} {
			full := int(uint64(width) * min(pr.GetDone(), pr.GetTotal()) / pr.GetTotal())
			bar = fmt.Sprintf("[%s%s] %s", strings.Repeat("█", full), strings.Repeat("░", width-full), strings.Join(parts[:keep], "  "))
			if textWidth(bar) <= room {
				return bar
			}
		}
	}
	return parts[0]
}

// amounts are the parts of progress, the most telling first.
func amounts(pr *farrierv1.Progress) []string {
	out := []string{fmt.Sprintf("%3d%%", 100*min(pr.GetDone(), pr.GetTotal())/pr.GetTotal())}
	if r := pr.GetRate(); r > 0 {
		left := time.Duration(float64(pr.GetTotal()-min(pr.GetDone(), pr.GetTotal())) / float64(r) * float64(time.Second))
		out = append(out, left.Round(time.Second).String()+" left")
	}
	out = append(out, Bytes(pr.GetDone())+" of "+Bytes(pr.GetTotal()))
	if r := pr.GetRate(); r > 0 {
		out = append(out, Bytes(r)+"/s")
	}
	if pr.GetSkipped() > 0 {
		out = append(out, "("+Bytes(pr.GetSkipped())+" in place or zero)")
	}
	return out
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
