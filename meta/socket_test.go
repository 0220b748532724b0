package meta

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/tlstest"
)

// choppy is a connection whose bytes come in small pieces, with nothing there in between.
type choppy struct {
	net.Conn
	on     bool
	rand   *rand.Rand
	blocks int
}

func (c *choppy) Read(b []byte) (int, error) {
	if !c.on {
		return c.Conn.Read(b)
	}
	if c.rand.IntN(2) == 0 {
		c.blocks++
		return 0, errWouldBlock
	}
	return c.Conn.Read(b[:min(len(b), 1+c.rand.IntN(2000))])
}

// The read path leans on this property of crypto/tls: after the handshake a temporary net.Error is
// not sticky, and a half-read record is kept for the next Read.
func TestTLSKeepsHalfReadRecord(t *testing.T) {
	ca := tlstest.NewCA(t)
	server := ca.ServerConfig(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			near, far := net.Pipe()
			source := rand.New(rand.NewPCG(uint64(version), 1))
			line := &choppy{Conn: near, rand: source}
			config := server.Clone()
			config.MaxVersion = version
			conn := tls.Server(line, config)
			sent := make([]byte, 1<<20)
			rand.NewChaCha8([32]byte{}).Read(sent)
			wrote := make(chan error, 1)
			sizes := rand.New(rand.NewPCG(2, 2))
			go func() {
				peer := tls.Client(far, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
				for rest := sent; len(rest) > 0; {
					n := min(len(rest), 1+sizes.IntN(20_000))
					if _, err := peer.Write(rest[:n]); err != nil {
						wrote <- err
						return
					}
					rest = rest[n:]
				}
				wrote <- peer.Close()
			}()
			require.NoError(t, conn.Handshake())
			line.on = true
			got, err := readThrough(conn)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(sent, got))
			assert.NoError(t, <-wrote)
			assert.Greater(t, line.blocks, 500)
			t.Logf("%d would-blocks", line.blocks)
		})
	}
}

// readThrough reads to the end over all would-blocks.
func readThrough(r io.Reader) (got []byte, err error) {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		got = append(got, buf[:n]...)
		switch {
		case err == io.EOF:
			return got, nil
		case err != nil && !errors.Is(err, errWouldBlock):
			return got, err
		}
	}
}

// During the handshake the same error is final: handshakes have to block.
func TestTLSHandshakeMustBlock(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	conn := tls.Server(&choppy{Conn: near, on: true, rand: rand.New(rand.NewPCG(3, 3))}, tlstest.NewCA(t).ServerConfig(t))
	go tls.Client(far, &tls.Config{InsecureSkipVerify: true}).Handshake()
	var first error
	for range 20 {
		if first = conn.Handshake(); first != nil {
			break
		}
	}
	require.ErrorIs(t, first, errWouldBlock)
	assert.Equal(t, first, conn.Handshake(), "it does not go on where it stopped")
	near.Close()
}

// The socket leaves no deadline behind after close_notify, since crypto/tls refuses by itself what
// would be written then.
func TestTLSWritesNothingAfterCloseNotify(t *testing.T) {
	ca := tlstest.NewCA(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			near, far := net.Pipe()
			config := ca.ServerConfig(t)
			config.MaxVersion = version
			sock := newSocket(near)
			sock.handshake = &tlsHandshake{ctx: t.Context()} // it blocks
			conn := tls.Server(sock, config)
			read := make(chan []byte, 1)
			go func() {
				got, _ := io.ReadAll(tls.Client(far, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}))
				read <- got
				far.Close()
			}()
			_, err := conn.Write([]byte("the last"))
			require.NoError(t, err)
			require.NoError(t, conn.CloseWrite())
			_, err = conn.Write([]byte("too late"))
			assert.ErrorContains(t, err, "shutdown")
			assert.Equal(t, "the last", string(<-read))
			near.Close()
		})
	}
}

// An interrupt of the read loop is no error of peek, which reads what has arrived all the same.
func TestPeekIsInterrupted(t *testing.T) {
	near, far := tcpPair(t)
	s := newSocket(near)
	stop := make(chan struct{})
	var interrupting sync.WaitGroup
	interrupting.Go(func() {
		for !isClosed(stop) {
			s.SetReadDeadline(aLongTimeAgo)
		}
	})
	defer interrupting.Wait()
	defer close(stop)
	var one [1]byte
	for range 10_000 {
		n, err := s.peek(one[:])
		require.NoError(t, err)
		require.Zero(t, n)
	}
	_, err := far.Write([]byte{7})
	require.NoError(t, err)
	for n := 0; n == 0; {
		n, err = s.peek(one[:])
		require.NoError(t, err)
	}
	assert.Equal(t, byte(7), one[0])
}
