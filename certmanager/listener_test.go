package certmanager_test

import (
	"crypto/tls"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// pipeListener accepts what the test gives it, and has an address.
type pipeListener struct {
	net.Listener // nil
	conns        chan net.Conn
	accepted     atomic.Int64
	closed       chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		l.accepted.Add(1)
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	close(l.closed)
	return nil
}

// Whether they are silent or have made their handshake: connections that Accept has not returned
// are bounded, and the others wait below.
func TestNewListenerWithoutAccept(t *testing.T) {
	const most, silent, ready = 10_000, 12_000, 20
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		m := newManager(t, certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{}))})
		inner := &pipeListener{conns: make(chan net.Conn, silent), closed: make(chan struct{})}
		listener := m.NewListener(inner)
		defer listener.Close()
		for range ready {
			serverEnd, clientEnd := net.Pipe()
			inner.conns <- buffer(serverEnd)
			conn := tls.Client(buffer(clientEnd), ca.ClientConfig(t, "localhost"))
			require.NoError(t, conn.Handshake())
			defer conn.NetConn().Close()
		}
		for range silent {
			serverEnd, clientEnd := net.Pipe()
			inner.conns <- serverEnd
			defer clientEnd.Close()
		}
		synctest.Wait()
		assert.Equal(t, int64(most), inner.accepted.Load(), "accepted")
		time.Sleep(11 * time.Second) // the silent ones have had their time
		synctest.Wait()
		assert.Equal(t, int64(ready+silent), inner.accepted.Load(), "accepted")
		for range ready {
			conn, err := listener.Accept()
			require.NoError(t, err)
			require.NoError(t, conn.Close())
		}
	})
}
