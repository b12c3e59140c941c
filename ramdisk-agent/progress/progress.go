package progress

import (
	"sync"
	"time"
)

// Progress is what a running step says of itself; bytes, and bytes a second.
type Progress struct {
	Done, Total, Rate, Skipped uint64
	Text                       string
}

// Report takes progress. It may be called from several goroutines and does not block.
type Report func(Progress)

// Meter counts bytes and reports them, at most four times a second. It is safe for concurrent use.
type Meter struct {
	report Report
	text   string
	total  uint64

	mu            sync.Mutex // guards the rest
	done, skipped uint64
	last          time.Time
	lastDone      uint64
	rate          uint64
}

const every = 250 * time.Millisecond

// New is a Meter of a part of a step, of which there are total bytes to do. It reports at once; report may be nil.
func New(report Report, text string, total int64) *Meter {
	m := &Meter{report: report, text: text, total: uint64(total), last: time.Now()}
	m.send()
	return m
}

// Add counts bytes that were done, and others that need not be.
func (m *Meter) Add(done, skipped int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done += uint64(done + skipped)
	m.skipped += uint64(skipped)
	if passed := time.Since(m.last); passed >= every {
		if d := m.done - m.lastDone; d > 0 {
			m.rate = uint64(time.Duration(d) * time.Second / passed)
		}
		m.last, m.lastDone = time.Now(), m.done
		m.send()
	}
}

// End reports the last count.
func (m *Meter) End() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.send()
}

func (m *Meter) send() {
	if m.report != nil {
		m.report(Progress{Done: m.done, Total: m.total, Rate: m.rate, Skipped: m.skipped, Text: m.text})
	}
}
