package leader

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

func TestCoalesced(t *testing.T) {
	var c coalesced
	var calls atomic.Int32
	entered, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	ask := func() {
		defer wg.Done()
		_, err := c.do(t.Context(), func(context.Context) (uint64, error) {
			if calls.Add(1) == 1 {
				close(entered)
				<-release
			}
			return 1, nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	wg.Add(1)
	go ask()
	<-entered
	const late = 50
	wg.Add(late)
	for range late {
		go ask()
	}
	close(release)
	wg.Wait()
	if n := calls.Load(); n < 2 || n > late+1 {
		t.Errorf("%d calls: who came after the first began needs another one", n)
	}
}

func TestCoalescedLeaver(t *testing.T) {
	var c coalesced
	gone, cancel := context.WithCancel(t.Context())
	entered := make(chan struct{})
	first := make(chan error, 1)
	go func() {
		_, err := c.do(gone, func(ctx context.Context) (uint64, error) {
			close(entered)
			<-ctx.Done()
			return 0, ctx.Err()
		})
		first <- err
	}()
	<-entered
	second := make(chan error, 1)
	go func() {
		v, err := c.do(t.Context(), func(context.Context) (uint64, error) { return 2, nil })
		if v != 2 {
			err = errors.Join(err, errors.New("not its own answer"))
		}
		second <- err
	}()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that left: %v", err)
	}
	if err := <-second; err != nil {
		t.Errorf("the one that stayed: %v", err)
	}
}
