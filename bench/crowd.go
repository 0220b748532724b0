package main

import (
	"fmt"
	"io"
	"net"
	"time"
)

// base is the server's resident memory without connections, after it has seen some: its code is
// paged in by then.
func (c *cell) base() (float64, error) {
	clients, err := c.dialAll(8, frame)
	if err != nil {
		return 0, err
	}
	for _, l := range clients {
		if err := l.Close(); err != nil {
			return 0, err
		}
	}
	time.Sleep(100 * time.Millisecond) // the server ends them too; if some are left, they are a few KiB among the crowd's
	s, err := c.ask(request{Do: "gc"})
	return s.RSS, err
}

// crowd measures a hundredth of the connections alone, the memory of all of them, and the same
// hundredth among the others, which are idle.
func crowd(c *cell) (map[string]measure, error) {
	base, err := c.base()
	if err != nil {
		return nil, err
	}
	found := map[string]measure{}
	busy, err := c.dialAll(max(1, c.Crowd/100), frame)
	if err != nil {
		return nil, err
	}
	measureBusy := func(row string) error {
		m, err := c.measure(echoing(busy, frame, frame, false))
		m.Mem = 0 // the connections' memory has rows of its own
		found[row] = m
		return err
	}
	if err := measureBusy(alone); err != nil {
		return nil, err
	}
	if _, err := c.dialAll(c.Crowd-len(busy), frame); err != nil {
		return nil, err
	}
	s, err := c.ask(request{Do: "stats"})
	if err != nil {
		return nil, err
	}
	found[idleBefore] = measure{Mem: (s.RSS - base) / float64(c.Crowd)}
	if s, err = c.ask(request{Do: "gc"}); err != nil {
		return nil, err
	}
	found[idleAfter] = measure{Mem: (s.RSS - base) / float64(c.Crowd)}
	return found, measureBusy(inCrowd)
}

// stepsOf are the numbers of connections of the curve.
func stepsOf(crowd int) []int {
	var found []int
	for n := 10; n <= crowd; n *= 10 {
		found = append(found, n)
	}
	return found
}

const opening = "opening"

func stepRow(n int) string { return fmt.Sprintf("%d connections", n) }

// steps measures the cost curve: with more and more connections, all of which are active.
func steps(c *cell) (map[string]measure, error) {
	base, err := c.base()
	if err != nil {
		return nil, err
	}
	before, err := c.ask(request{Do: "stats"})
	if err != nil {
		return nil, err
	}
	found := map[string]measure{}
	var clients []*client
	var dialling time.Duration // CPU of the server
	for _, n := range stepsOf(c.Crowd) {
		more, err := c.dialAll(n-len(clients), frame)
		if err != nil {
			return nil, err
		}
		clients = append(clients, more...)
		after, err := c.ask(request{Do: "stats"})
		if err != nil {
			return nil, err
		}
		dialling += after.CPU - before.CPU
		idle, err := c.ask(request{Do: "gc"})
		if err != nil {
			return nil, err
		}
		m, err := c.measure(echoing(clients, frame, frame, false))
		if err != nil {
			return nil, err
		}
		m.Mem = (idle.RSS - base) / float64(n)
		found[stepRow(n)] = m
		if before, err = c.ask(request{Do: "stats"}); err != nil {
			return nil, err
		}
	}
	found[opening] = measure{CPU: float64(dialling) / float64(len(clients))}
	return found, nil
}

func slowDown(_ *cell, j *serverJob) (func(), error) {
	j.Pause = time.Millisecond
	return func() {}, nil
}

// flood sends all that a slow server takes, to see what that costs it in memory.
func flood(c *cell) (map[string]measure, error) {
	clients, err := c.dialAll(64, 16<<10)
	if err != nil {
		return nil, err
	}
	var operations []func() (int, error)
	for _, l := range clients {
		// A large buffer would empty for seconds before a write that waits for it is let go at the
		// end.
		if err := l.below.Conn.(*net.TCPConn).SetWriteBuffer(64 << 10); err != nil {
			return nil, err
		}
		go io.Copy(io.Discard, l) // until the process ends
		operations = append(operations, func() (int, error) {
			_, err := l.Write(l.buf)
			return 1, err
		})
	}
	m, err := c.measure(operations)
	return map[string]measure{credit: {Mem: m.Mem, GCs: m.GCs}}, err
}
