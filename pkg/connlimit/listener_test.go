package connlimit

import (
	"io"
	"net"
	"testing"
	"time"
)

func TestBounds(t *testing.T) {
	for name, bounds := range map[string][2]int{"in all": {2, 10}, "per client": {10, 2}} {
		inner, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ln := New(inner, bounds[0], bounds[1])
		accepted := make(chan net.Conn, 10)
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				accepted <- c
			}
		}()
		dial := func() net.Conn {
			t.Helper()
			c, err := net.Dial("tcp", inner.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		}
		dial()
		dial()
		first, second := <-accepted, <-accepted
		third := dial()
		if err := third.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := third.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: the third connection reads %v, want to be closed", name, err)
		}
		first.Close()
		first.Close() // twice counts once
		dial()
		c := <-accepted
		if _, ok := c.(io.ReaderFrom); !ok {
			t.Errorf("%s: the connection lost ReadFrom", name)
		}
		c.Close()
		second.Close()
		if l := ln.(*listener); l.total != 0 || len(l.clients) != 0 {
			t.Errorf("%s: %d connections of %d clients are counted after all closed", name, l.total, len(l.clients))
		}
		ln.Close()
		<-stopped
	}
}
