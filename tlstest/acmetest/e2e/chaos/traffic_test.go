//go:build linux

package chaos

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// traffic is what clients do to a server: some stay and talk, and one comes again and again to see
// what is served. Each is a goroutine that ends with stop.
type traffic struct {
	quit    chan struct{} // closed by stop
	running sync.WaitGroup

	echoed, visits, broken atomic.Int64

	mu      sync.Mutex
	allowed map[string]bool // serial numbers that may be served
	last    string          // that of the last visit
}

const stayers = 3

func (f *traffic) allow(leaf *x509.Certificate) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.allowed == nil {
		f.allowed = make(map[string]bool)
	}
	f.allowed[leaf.SerialNumber.String()] = true
}

func (f *traffic) start(w *world) {
	w.t.Cleanup(f.stop)
	for range stayers {
		f.running.Go(func() { f.stay(w) })
	}
	f.running.Go(func() {
		for ; !f.stopped(); pause() {
			f.judge(w, f.visit(w), "a visitor was refused")
		}
	})
}

// stop may be called twice.
func (f *traffic) stop() {
	if !f.stopped() {
		close(f.quit)
	}
	f.running.Wait()
}

func (f *traffic) stopped() bool {
	select {
	case <-f.quit:
		return true
	default:
		return false
	}
}

func pause() { time.Sleep(20 * time.Millisecond) }

func (f *traffic) String() string {
	return fmt.Sprintf("%d messages echoed, %d handshakes, %d connections broken", f.echoed.Load(), f.visits.Load(), f.broken.Load())
}

// judge decides whether a connection could end like this.
func (f *traffic) judge(w *world, err error, what string) {
	if err == nil {
		return
	}
	f.broken.Add(1)
	var net net.Error
	byTCP := errors.As(err, &net) && net.Timeout() || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	assert.True(w.t, byTCP && w.tolerant.Load(), "%s: %v", what, err)
}

func (w *world) dial() (*tls.Conn, error) { return w.dialAs(w.peer) }

func (w *world) dialAs(peer *tls.Config) (*tls.Conn, error) {
	limit := 20 * time.Second
	if w.tolerant.Load() {
		limit = time.Second
	}
	raw, err := net.DialTimeout("tcp", w.setup.Addr, limit)
	if err != nil {
		return nil, err
	}
	raw.SetDeadline(time.Now().Add(limit))
	conn := tls.Client(raw, peer)
	if err := conn.Handshake(); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// visit makes a handshake, looks at what it got, and talks.
func (f *traffic) visit(w *world) error {
	conn, err := w.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	serial := conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	f.mu.Lock()
	known := f.allowed[serial]
	f.last = serial
	f.mu.Unlock()
	if !known {
		return fmt.Errorf("a certificate was served that nobody wanted to be: serial %s", serial)
	}
	f.visits.Add(1)
	return f.exchange(conn)
}

// stay keeps a connection and talks over it, and comes back when it breaks.
func (f *traffic) stay(w *world) {
	for ; !f.stopped(); pause() {
		conn, err := w.dial()
		for err == nil && !f.stopped() {
			limit := 20 * time.Second
			if w.tolerant.Load() {
				limit = time.Second
			}
			conn.SetDeadline(time.Now().Add(limit))
			err = f.exchange(conn)
			pause()
		}
		f.judge(w, err, "a client that stays was cut off")
		if conn != nil {
			conn.Close()
		}
	}
}

// exchange sends a message and wants the same bytes back.
func (f *traffic) exchange(conn net.Conn) error {
	sent := make([]byte, 8+rand.IntN(4096))
	for i := 0; i+8 <= len(sent); i += 8 {
		binary.NativeEndian.PutUint64(sent[i:], rand.Uint64())
	}
	if _, err := conn.Write(sent); err != nil {
		return err
	}
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if !bytes.Equal(sent, got) {
		return errors.New("what came back is not what was sent")
	}
	f.echoed.Add(1)
	return nil
}

// awaitLeaf waits until visitors meet a certificate, and says how long it took.
func (f *traffic) awaitLeaf(t *testing.T, leaf *x509.Certificate, within time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	for time.Since(began) < within {
		f.mu.Lock()
		last := f.last
		f.mu.Unlock()
		if last == leaf.SerialNumber.String() {
			return time.Since(began)
		}
		time.Sleep(5 * time.Millisecond)
	}
	require.Fail(t, "the new set is not served", "after %v", within)
	return 0
}
