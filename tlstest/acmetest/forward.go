package acmetest

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
)

// forwarder is where Pebble validates. It leads on to where the test says, which is
// known later than Pebble, and may change.
type forwarder struct {
	listener net.Listener
	ctx      context.Context // ends with close
	stop     context.CancelFunc
	done     sync.WaitGroup

	mu      sync.Mutex // guards targets and next
	targets []string
	next    int
}

func newForwarder() (*forwarder, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("acmetest: %w", err)
	}
	f := &forwarder{listener: listener}
	f.ctx, f.stop = context.WithCancel(context.Background())
	f.done.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			f.done.Go(func() { f.forward(conn) })
		}
	})
	return f, nil
}

func (f *forwarder) port() int { return f.listener.Addr().(*net.TCPAddr).Port }

func (f *forwarder) to(targets []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.targets, f.next = append([]string(nil), targets...), 0
}

// target returns where the next connection goes, "" if nowhere.
func (f *forwarder) target() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.targets) == 0 {
		return ""
	}
	f.next++
	return f.targets[(f.next-1)%len(f.targets)]
}

// forward copies both ways until Pebble or the server closes.
func (f *forwarder) forward(conn net.Conn) {
	defer conn.Close()
	target := f.target()
	if target == "" {
		return
	}
	server, err := new(net.Dialer).DialContext(f.ctx, "tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	defer context.AfterFunc(f.ctx, func() {
		conn.Close()
		server.Close()
	})()
	ended := make(chan struct{}, 2)
	for _, ends := range [][2]net.Conn{{conn, server}, {server, conn}} {
		f.done.Go(func() {
			io.Copy(ends[0], ends[1])
			ended <- struct{}{}
		})
	}
	<-ended
}

func (f *forwarder) close() {
	f.stop()
	f.listener.Close()
	f.done.Wait()
}
