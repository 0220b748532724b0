package tlstest_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/tlstest"
)

// meet lets the peer visit a server with one connection, and returns what
// either side saw. A nil CA is plain TCP.
func meet(t *testing.T, visit func(net.Conn, *tls.Config, time.Duration) ([]byte, error), ca *tlstest.CA,
	timeout time.Duration, serve func(net.Conn) error) (received []byte, peerErr, serverErr error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	var server, client *tls.Config
	if ca != nil {
		server, client = ca.MutualServerConfig(t), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})
	}
	done := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			defer conn.Close()
			if server != nil {
				conn = tls.Server(conn, server)
			}
			err = serve(conn)
		}
		done <- err
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	received, peerErr = visit(conn, client, timeout)
	_, err = conn.Write([]byte{0})
	assert.ErrorIs(t, err, net.ErrClosed, "the peer closes the connection")
	return received, peerErr, <-done
}

// impatient echoes for 800 ms. Closing TLS would wait 5 s for a peer that does
// not read, so what fails is closed below TLS.
func impatient(conn net.Conn) error {
	conn.SetDeadline(time.Now().Add(800 * time.Millisecond))
	if _, err := io.Copy(conn, conn); err != nil {
		return err
	}
	return conn.Close()
}

// patient echoes until the client is gone.
func patient(conn net.Conn) error {
	_, err := io.Copy(conn, conn)
	return err
}

func TestPeers(t *testing.T) {
	ca := tlstest.NewCA(t)
	const deadline = "i/o timeout"
	tests := map[string]struct {
		peer   error  // what the peer sees of an impatient server
		server string // what that server sees
		held   error  // what the peer sees of a patient server, at the end of its own timeout
	}{
		"silent":                     {io.EOF, deadline, os.ErrDeadlineExceeded},
		"one byte a second":          {io.EOF, deadline, os.ErrDeadlineExceeded},
		"half a ClientHello":         {io.EOF, deadline, os.ErrDeadlineExceeded},
		"plain HTTP":                 {io.EOF, "first record does not look like a TLS handshake", io.EOF},
		"garbage":                    {syscall.ECONNRESET, "first record does not look like a TLS handshake", syscall.ECONNRESET},
		"reset before the handshake": {nil, "connection reset", nil},
		"reset during the handshake": {nil, "connection reset", nil},
		"reset after the handshake":  {nil, "connection reset", nil},
		"FIN without close_notify":   {io.EOF, "", io.ErrUnexpectedEOF}, // crypto/tls calls it an orderly end
		"never reads":                {syscall.ECONNRESET, deadline, os.ErrDeadlineExceeded},
	}
	assert.Len(t, tests, len(tlstest.HostileClients))
	for _, peer := range tlstest.HostileClients {
		want := tests[peer.Name]
		t.Run(peer.Name+"/impatient server", func(t *testing.T) {
			t.Parallel()
			_, peerErr, serverErr := meet(t, peer.Visit, ca, 30*time.Second, impatient)
			if want.server == "" {
				require.NoError(t, serverErr)
			} else {
				require.ErrorContains(t, serverErr, want.server)
			}
			switch {
			case want.peer == nil:
				require.NoError(t, peerErr)
			case errors.Is(peerErr, want.peer):
			default:
				// What the server has not read when it closes makes a reset of its FIN,
				// and a byte sent after a reset a broken pipe.
				require.Contains(t, []string{"one byte a second", "garbage", "never reads"}, peer.Name, peerErr)
				require.True(t, errors.Is(peerErr, syscall.ECONNRESET) || errors.Is(peerErr, syscall.EPIPE), peerErr)
			}
		})
		t.Run(peer.Name+"/patient server", func(t *testing.T) {
			t.Parallel()
			_, peerErr, _ := meet(t, peer.Visit, ca, time.Second, patient)
			if want.held == nil {
				require.NoError(t, peerErr)
			} else {
				require.ErrorIs(t, peerErr, want.held)
			}
		})
	}
}

func TestPeersOfPlainTCP(t *testing.T) {
	for name, test := range map[string]struct {
		visit func(net.Conn, *tls.Config, time.Duration) ([]byte, error)
		want  error
	}{
		"silent":      {tlstest.Silent, os.ErrDeadlineExceeded},
		"half hello":  {tlstest.HalfHello, os.ErrDeadlineExceeded},
		"reset":       {tlstest.ResetAfterHandshake, nil},
		"FIN":         {tlstest.FINWithoutCloseNotify, io.EOF},
		"never reads": {tlstest.NeverReads, os.ErrDeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			_, err, _ := meet(t, test.visit, nil, 300*time.Millisecond, patient)
			require.ErrorIs(t, err, test.want)
		})
	}
}

func TestPeersReturnWhatTheyReceive(t *testing.T) {
	greet := func(conn net.Conn) error {
		_, err := conn.Write([]byte("hello"))
		return errors.Join(err, conn.Close())
	}
	received, err, _ := meet(t, tlstest.FINWithoutCloseNotify, tlstest.NewCA(t), 30*time.Second, greet)
	require.ErrorIs(t, err, io.EOF)
	assert.Equal(t, "hello", string(received))

	received, err, _ = meet(t, tlstest.Silent, nil, 30*time.Second, greet)
	require.ErrorIs(t, err, io.EOF)
	assert.Equal(t, "hello", string(received))
}

func TestSlowKeepsItsPace(t *testing.T) {
	ca := tlstest.NewCA(t)
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		go func() {
			_, err := tlstest.Slow(time.Second)(near, ca.ClientConfig(t, "localhost"), time.Hour)
			assert.ErrorIs(t, err, io.EOF)
		}()
		start := time.Now()
		for i := range 100 {
			var b [1]byte
			_, err := far.Read(b[:])
			require.NoError(t, err)
			assert.Equal(t, time.Duration(i+1)*time.Second, time.Since(start))
			if i == 0 {
				assert.Equal(t, byte(22), b[0], "a handshake record")
			}
		}
		far.Close()
	})
}

func TestPeersWithoutTheirMeans(t *testing.T) {
	for failure, visit := range map[string]func(net.Conn, *tls.Config, time.Duration) ([]byte, error){
		"a reset needs":                          tlstest.ResetBeforeHandshake,
		"a FIN needs":                            tlstest.FINWithoutCloseNotify,
		"ClientHello: tls: either ServerName or": tlstest.HalfHello,
	} {
		near, far := net.Pipe()
		_, err := visit(near, &tls.Config{}, time.Second)
		require.ErrorContains(t, err, failure)
		_, err = far.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF, "the connection is closed")
	}
}
