package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
)

// client is one connection of the load.
type client struct {
	*tls.Conn
	below *holdConn
	buf   []byte // what the client sends, and then what comes back
}

// holdConn collects what is written while hold is set: many TLS records for one system call.
type holdConn struct {
	net.Conn
	hold bool
	held []byte
}

func (c *holdConn) Write(p []byte) (int, error) {
	if !c.hold {
		return c.Conn.Write(p)
	}
	c.held = append(c.held, p...)
	return len(p), nil
}

func (c *holdConn) flush() error {
	_, err := c.Conn.Write(c.held)
	c.held = c.held[:0]
	return err
}

func (c *cell) clientConfig() *tls.Config {
	if c.roots != nil {
		return &tls.Config{RootCAs: c.roots, ServerName: c.serverName, MinVersion: tls.VersionTLS13}
	}
	config := c.ca.ClientConfig(nil, c.serverName)
	config.MinVersion, config.Certificates = tls.VersionTLS13, c.clientCert
	return config
}

// dial connects, and is done when an echo has come back: a TLS 1.3 client is through before its
// server.
func (c *cell) dial(config *tls.Config, size int) (*client, error) {
	dialer := net.Dialer{}
	if c.from != nil {
		dialer.LocalAddr = c.from
	}
	conn, err := dialer.Dial("tcp", c.addr)
	if err != nil {
		return nil, err
	}
	below := &holdConn{Conn: conn}
	l := &client{tls.Client(below, config), below, make([]byte, size)}
	if _, err := l.echo(frame, frame, false); err != nil {
		conn.Close()
		return nil, err
	}
	return l, nil
}

// dialAll opens n connections, or the whole crowd where that is smaller.
func (c *cell) dialAll(n, size int) ([]*client, error) {
	n = min(n, c.Crowd)
	config := c.clientConfig()
	clients, errs := make([]*client, n), make(chan error, n)
	slots := make(chan struct{}, 16)
	var wait sync.WaitGroup
	for i := range clients {
		slots <- struct{}{}
		wait.Go(func() {
			var err error
			if clients[i], err = c.dial(config, size); err != nil {
				errs <- fmt.Errorf("connection %d of %d: %w", i+1, n, err)
			}
			<-slots
		})
	}
	wait.Wait()
	select {
	case err := <-errs:
		return nil, err
	default:
		return clients, nil
	}
}

// echo sends total bytes in messages of the given size, each a TLS record of its own (several, over
// 16 KiB), and reads them back. Batched, all of them are one write to the socket; else each message
// is.
func (l *client) echo(total, size int, batched bool) (int, error) {
	l.below.hold = batched
	for sent := 0; sent < total; sent += size {
		if _, err := l.Write(l.buf[sent : sent+size]); err != nil {
			return 0, err
		}
	}
	if batched {
		if err := l.below.flush(); err != nil {
			return 0, err
		}
	}
	if _, err := io.ReadFull(l, l.buf[:total]); err != nil {
		return 0, err
	}
	return total / size, nil
}
