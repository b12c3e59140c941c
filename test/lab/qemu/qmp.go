package qemu

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// qmp is a connection to QEMU's monitor (QEMU Machine Protocol 2.x), one command at a time.
type qmp struct {
	mu   sync.Mutex
	conn net.Conn
	in   *bufio.Scanner
}

// dialQMP connects when QEMU listens, and gives up when it is gone or after 30 s.
func dialQMP(path string, gone <-chan struct{}) (*qmp, error) {
	deadline := time.Now().Add(30 * time.Second)
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			return greet(conn, deadline)
		}
		select {
		case <-gone:
			return nil, errors.New("it ended at once")
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return nil, err
		}
	}
}

// greet reads the monitor's greeting, which a stuck QEMU never sends, and makes it take commands.
func greet(conn net.Conn, deadline time.Time) (*qmp, error) {
	q := &qmp{conn: conn, in: bufio.NewScanner(conn)}
	err := conn.SetReadDeadline(deadline)
	if err == nil && !q.in.Scan() {
		err = fmt.Errorf("no greeting from the monitor: %w", cmp.Or(q.in.Err(), io.ErrUnexpectedEOF))
	}
	if err == nil {
		err = q.execute("qmp_capabilities", nil)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return q, nil
}

func (q *qmp) close() { _ = q.conn.Close() }

func (q *qmp) execute(command string, args map[string]any) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	_ = q.conn.SetDeadline(time.Now().Add(10 * time.Second))
	msg := map[string]any{"execute": command}
	if args != nil {
		msg["arguments"] = args
	}
	if err := json.NewEncoder(q.conn).Encode(msg); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	for q.in.Scan() {
		var reply struct {
			Return json.RawMessage `json:"return"`
			Error  *struct{ Desc string }
		}
		if err := json.Unmarshal(q.in.Bytes(), &reply); err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		switch {
		case reply.Error != nil:
			return fmt.Errorf("%s: %s", command, reply.Error.Desc)
		case reply.Return != nil:
			return nil
		} // else an event
	}
	if command == "quit" {
		return nil
	}
	return fmt.Errorf("%s: the monitor closed: %v", command, q.in.Err())
}
