package progress

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestMeterReportsFourTimesASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said []Progress
		m := New(func(p Progress) { said = append(said, p) }, "write", 1000)
		for range 100 { // ten bytes each 10 ms, of which a fifth need not be written
			<-time.After(10 * time.Millisecond)
			m.Add(8, 2)
		}
		m.End()
		if last := said[len(said)-1]; last != (Progress{Done: 1000, Total: 1000, Rate: 1000, Skipped: 200, Text: "write"}) {
			t.Errorf("in the end it says %+v", last)
		}
		if len(said) != 6 {
			t.Errorf("in a second it reported %d times", len(said))
		}
	})
}

func TestNobodyNeedsToListen(t *testing.T) {
	m := New(nil, "write", 1)
	m.Add(1, 0)
	m.End()
}
