package report

import (
	"strings"
	"testing"
	"time"
)

func TestPrint(t *testing.T) {
	var b strings.Builder
	Print(&b, []Figure{
		{Row: 1, Metric: "lock pairs", Value: 24624, Unit: "/s", Anchor: "etcd 1489/s", Ratio: 16.537, Goal: ">= 10x", Met: Met(true), Note: "one stream"},
		{Row: 14, Metric: "cold start", Value: 1.611, Unit: "s", Goal: "<= 1 s", Met: Met(false)},
	})
	want := strings.Join([]string{
		"ROW  METRIC      FIGURE    ANCHOR       RATIO   GOAL    MET",
		"1    lock pairs  24624 /s  etcd 1489/s  16.54x  >= 10x  yes",
		"     one stream",
		"14   cold start  1.61 s                         <= 1 s  no",
	}, "\n") + "\n"
	if b.String() != want {
		t.Errorf("printed\n%swant\n%s", b.String(), want)
	}
}

func TestMedianAndPercentile(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := Median(c.of); got != c.want {
			t.Errorf("median of %v: %v", c.of, got)
		}
	}
	var d []time.Duration
	for i := range 200 {
		d = append(d, time.Duration(200-i))
	}
	for p, want := range map[float64]time.Duration{0: 1, 50: 100, 99: 198, 100: 200} {
		if got := Percentile(d, p); got != want {
			t.Errorf("percentile %v of 1 to 200: %d", p, got)
		}
	}
	if Percentile(nil, 99) != 0 {
		t.Error("of nothing there is a percentile")
	}
}
