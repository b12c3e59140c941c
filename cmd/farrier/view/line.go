package view

import "strings"

// span is a piece of a line in one colour.
type span struct{ code, text string }

// line is what is drawn on one line of a terminal. Its text has no control characters.
type line []span

func (ln line) width() int {
	n := 0
	for _, s := range ln {
		n += textWidth(s.text)
	}
	return n
}

// render is the line cut to so many columns; the last of them says that it was cut.
func (ln line) render(p Printer, columns int) string {
	var b strings.Builder
	room, cut := columns, ln.width() > columns
	if cut {
		room--
	}
	for _, s := range ln {
		text := s.text
		for i, r := range s.text {
			if w := runeWidth(r); w > room {
				text, room = s.text[:i], 0
				break
			} else {
				room -= w
			}
		}
		b.WriteString(p.paint(s.code, text))
		if room == 0 && cut {
			break
		}
	}
	if cut {
		b.WriteString("…")
	}
	return b.String()
}

// textWidth is how many columns a text takes.
func textWidth(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

// runeWidth is how many columns a character takes: two for those of East Asia and for pictures. Too many is harmless.
func runeWidth(r rune) int {
	if r >= 0x1100 && r <= 0x115f || r >= 0x2e80 && r <= 0xa4cf || r >= 0xac00 && r <= 0xd7a3 || r >= 0xf900 && r <= 0xfaff ||
		r >= 0xfe30 && r <= 0xfe6f || r >= 0xff00 && r <= 0xff60 || r >= 0xffe0 && r <= 0xffe6 || r >= 0x1f300 {
		return 2
	}
	return 1
}
