package usage

import (
	"os"
	"testing"
)

func TestOfThisProcess(t *testing.T) {
	m, err := Start([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	for sum, i := 0, 0; own()-m.own < 30e6; i++ { // three ticks of the kernel's
		sum += i
	}
	took, all, err := m.Stop()
	if err != nil || all < 40e6 || took > m.Running() {
		t.Errorf("30 ms of CPU are counted twice, here and by process id: %v in %v, %v", all, took, err)
	}
	rss, anonymous, err := Resident(os.Getpid())
	if err != nil || anonymous == 0 || rss < anonymous {
		t.Errorf("%d bytes are resident, %d of no file, %v", rss, anonymous, err)
	}
	if _, err := CPU(1 << 30); err == nil {
		t.Error("a process that is not there has used time")
	}
}
