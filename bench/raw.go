package main

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"time"
)

// startRaw serves a listener as plain crypto/tls is used: a goroutine and a buffer per connection.
func startRaw(l net.Listener, config *tls.Config, echo func(net.Conn, *tls.Config)) {
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				os.Exit(1) // the listener lives as long as the process
			}
			go echo(conn, config)
		}
	}()
}

// rawEcho answers each read with a write, after a pause where the server is to be slow.
func rawEcho(pause time.Duration) func(net.Conn, *tls.Config) {
	return func(conn net.Conn, config *tls.Config) {
		c := tls.Server(conn, config)
		defer c.Close()
		buf := make([]byte, 16<<10)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			if pause > 0 {
				time.Sleep(pause)
			}
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
	}
}

// drainEcho reads all that has arrived before it answers: the ceiling for pipelining.
func drainEcho(conn net.Conn, config *tls.Config) {
	below, err := newDrainConn(conn)
	if err != nil {
		conn.Close()
		return
	}
	c := tls.Server(below, config)
	defer c.Close()
	buf := make([]byte, 16<<10)
	for {
		below.polling = false
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		below.polling = true
		for n < len(buf) {
			more, err := c.Read(buf[n:])
			if n += more; errors.Is(err, wouldBlock{}) {
				break
			}
			if err != nil {
				return
			}
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// wouldBlock is the error of a read that would have to wait. A net.Error that is temporary does not
// end a tls.Conn.
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "would block" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }
