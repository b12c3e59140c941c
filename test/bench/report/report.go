package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

// Figure is one line of the table.
type Figure struct {
	Row    int     `json:"row"`
	Metric string  `json:"metric"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Anchor string  `json:"anchor,omitempty"` // what it is set beside, with its figure in this run, or "recorded"
	Ratio  float64 `json:"ratio,omitempty"`  // value over anchor
	Goal   string  `json:"goal"`
	Met    string  `json:"met"` // yes, no, or "" where there is no goal
	Note   string  `json:"note,omitempty"`
}

// Met turns a comparison into a figure's word.
func Met(ok bool) string {
	if ok {
		return "yes"
	}
	return "no"
}

// Print writes the table.
func Print(w io.Writer, figures []Figure) {
	rows := [][]string{{"ROW", "METRIC", "FIGURE", "ANCHOR", "RATIO", "GOAL", "MET"}}
	for _, f := range figures {
		ratio := ""
		if f.Ratio != 0 {
			ratio = fmt.Sprintf("%.2fx", f.Ratio)
		}
		rows = append(rows, []string{fmt.Sprint(f.Row), f.Metric, Number(f.Value) + " " + f.Unit, f.Anchor, ratio, f.Goal, f.Met})
	}
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			widths[i] = max(widths[i], len([]rune(c)))
		}
	}
	for i, r := range rows {
		var b strings.Builder
		for j, c := range r {
			b.WriteString(c + strings.Repeat(" ", widths[j]-len([]rune(c))+2))
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
		if i > 0 && figures[i-1].Note != "" {
			fmt.Fprintln(w, "     "+figures[i-1].Note)
		}
	}
}

// Number has as many digits as a figure is good for.
func Number(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.3g", v)
	}
}

// WriteJSON writes the file that programs read.
func WriteJSON(path string, figures []Figure) error {
	data, err := json.MarshalIndent(map[string]any{"at": time.Now().UTC().Format(time.RFC3339), "simulated": "BMCs and machines", "figures": figures}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// Median of an odd or even number of values; 0 of none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// Percentile p (0 to 100) of durations, by the nearest rank.
func Percentile(d []time.Duration, p float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(d))
	return s[max(0, int(math.Ceil(float64(len(s))*p/100))-1)]
}
