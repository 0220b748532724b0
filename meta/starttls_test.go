package meta_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

func startTLSServer(m mode) meta.TCPServerOptions {
	return meta.TCPServerOptions{CertManager: m.manager, StartTLS: true, Active: 1, Split: bufio.ScanLines}
}

// exchange sends a line in the clear and takes the actor's side of it.
func exchange(t *testing.T, a *actor, peer io.Writer, line string) {
	t.Helper()
	_, err := io.WriteString(peer, line+"\n")
	require.NoError(t, err)
	assert.Equal(t, line, string(expect[meta.MessageTCP](a).Data))
	expect[meta.MessageTCPPassive](a)
}

// recorder keeps what went over a connection, as somebody on the path sees it.
type recorder struct {
	net.Conn
	mu  sync.Mutex
	saw bytes.Buffer
}

func (r *recorder) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.saw.Write(b[:n])
	return n, err
}

// The upgrade comes after what was written before it, and nothing is in the clear after it.
func TestStartTLS(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		server, addr := a.listen(startTLSServer(m))
		assert.Equal(t, "StartTLS", a.inspect(server)["tls"])
		line := &recorder{Conn: dialTCP(t, addr)}
		connect := expect[meta.MessageTCPConnect](a)
		assert.Nil(t, connect.TLS)
		id := connect.ID
		exchange(t, a, line, "STARTTLS")

		a.do(func(o *owner) {
			for _, message := range []any{
				meta.MessageTCP{Data: []byte("before\n")},
				meta.MessageTCPStartTLS{Reply: []byte("go ahead\n")},
				meta.MessageTCP{Data: []byte("top secret\n")}, // waits for the handshake
			} {
				assert.NoError(t, o.SendAlias(id, message))
			}
		})
		clear := make([]byte, len("before\ngo ahead\n"))
		_, err := io.ReadFull(line, clear)
		require.NoError(t, err)
		assert.Equal(t, "before\ngo ahead\n", string(clear))
		secure := tls.Client(line, m.client)
		secret, err := bufio.NewReader(secure).ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, "top secret\n", secret)
		assert.NotContains(t, line.saw.String(), "secret")

		secured := expect[meta.MessageTCPSecured](a)
		assert.Equal(t, id, secured.ID)
		assert.Equal(t, secure.ConnectionState().Version, secured.TLS.Version)
		assert.Equal(t, tls.VersionName(secured.TLS.Version), secured.Peer.Version)
		if m.name == "mTLS" {
			assert.True(t, secured.Peer.Verified)
		}
		a.send(id, meta.MessageTCPActive{N: 1})
		exchange(t, a, secure, "over TLS")
		a.send(id, meta.MessageTCPStartTLS{}) // a second time: ignored
		a.send(id, meta.MessageTCPActive{N: 1})
		require.NoError(t, secure.Close())
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrClosedByPeer)
	})
}

// Both sides are actors.
func TestStartTLSBetweenActors(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		h := newHost(t)
		server, client := h.spawn(nil), h.spawn(nil)
		_, addr := server.listen(startTLSServer(m))
		id := client.connect(meta.TCPConnectionOptions{Port: portOf(t, addr), CertManager: m.manager, StartTLS: true, Active: 1, Split: bufio.ScanLines})
		expect[meta.MessageTCPConnect](client)
		accepted := expect[meta.MessageTCPConnect](server).ID
		client.send(id, meta.MessageTCP{Data: []byte("STARTTLS\n")})
		expect[meta.MessageTCP](server)
		expect[meta.MessageTCPPassive](server)
		server.send(accepted, meta.MessageTCPStartTLS{Reply: []byte("OK\n")})
		assert.Equal(t, "OK", string(expect[meta.MessageTCP](client).Data))
		expect[meta.MessageTCPPassive](client)
		client.send(id, meta.MessageTCPStartTLS{})
		assert.True(t, expect[meta.MessageTCPSecured](client).Peer.Verified)
		expect[meta.MessageTCPSecured](server)
		server.send(accepted, meta.MessageTCP{Data: []byte("hello\n")})
		client.send(id, meta.MessageTCPActive{N: 1})
		assert.Equal(t, "hello", string(expect[meta.MessageTCP](client).Data))
	})
}

// What comes before the upgrade must not be taken for something that came over TLS (CVE-2011-0411),
// whether it was read together with the command, waits in the kernel, or is only half a line.
func TestStartTLSInjection(t *testing.T) {
	for name, inject := range map[string]string{"with the command": "STARTTLS\nEVIL\n", "half a line": "STARTTLS\nEV", "a later packet": "STARTTLS\n"} {
		t.Run(name, func(t *testing.T) {
			tlsModes(t, func(t *testing.T, m mode) {
				a := newHost(t).spawn(nil)
				_, addr := a.listen(startTLSServer(m))
				peer := dialTCP(t, addr)
				id := expect[meta.MessageTCPConnect](a).ID
				io.WriteString(peer, inject)
				expect[meta.MessageTCP](a)
				expect[meta.MessageTCPPassive](a)
				if name == "a later packet" {
					io.WriteString(peer, "EVIL\n") // on loopback it has arrived when Write returns
				}
				a.send(id, meta.MessageTCPStartTLS{Reply: []byte("go ahead\n")})
				disconnect := expect[meta.MessageTCPDisconnect](a)
				assert.ErrorIs(t, disconnect.Reason, meta.ErrStartTLS)
				assert.ErrorContains(t, disconnect.Reason, "in the clear")
				got, _ := io.ReadAll(peer)
				assert.Empty(t, got, "there is no go-ahead")
			})
		})
	}
}

// An upgrade that fails ends the connection, with its reason, after Connect.
func TestStartTLSFails(t *testing.T) {
	for name, test := range map[string]struct {
		act    func(peer net.Conn)
		reason error
	}{
		"garbage":         {func(peer net.Conn) { io.WriteString(peer, "no handshake, no handshake") }, meta.ErrHandshake},
		"silent":          {func(net.Conn) {}, meta.ErrHandshake},
		"closed":          {func(peer net.Conn) { peer.Close() }, meta.ErrHandshake},
		"without a trust": {func(peer net.Conn) { tls.Client(peer, &tls.Config{ServerName: "localhost"}).Handshake() }, meta.ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			tlsModes(t, func(t *testing.T, m mode) {
				a := newHost(t).spawn(nil)
				options := startTLSServer(m)
				if name == "silent" {
					options.HandshakeTimeout = 200 * time.Millisecond
				}
				server, addr := a.listen(options)
				peer := dialTCP(t, addr)
				id := expect[meta.MessageTCPConnect](a).ID
				exchange(t, a, peer, "STARTTLS")
				a.send(id, meta.MessageTCPStartTLS{Reply: []byte("go ahead\n")})
				a.send(id, meta.MessageTCP{Data: []byte("top secret\n")})
				_, err := io.ReadFull(peer, make([]byte, len("go ahead\n")))
				require.NoError(t, err)
				test.act(peer)
				assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, test.reason)
				assert.Equal(t, "1", a.inspect(server)["handshake failures"])
				got, err := io.ReadAll(peer)
				if !errors.Is(err, net.ErrClosed) {
					assertEnded(t, err)
				}
				assert.NotContains(t, string(got), "secret")
			})
		})
	}
}

// A peer that goes before the upgrade, or an exit in the middle of it, is an end as any other.
func TestStartTLSInterrupted(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(startTLSServer(m))
		peer := dialTCP(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		exchange(t, a, peer, "STARTTLS")
		peer.Close()
		a.send(id, meta.MessageTCPStartTLS{Reply: []byte("go ahead\n")})
		expect[meta.MessageTCPDisconnect](a)

		peer = dialTCP(t, addr)
		id = expect[meta.MessageTCPConnect](a).ID
		exchange(t, a, peer, "STARTTLS")
		a.send(id, meta.MessageTCPStartTLS{Reply: []byte("go ahead\n")})
		_, err := io.ReadFull(peer, make([]byte, len("go ahead\n")))
		require.NoError(t, err)
		a.do(func(o *owner) { assert.NoError(t, o.SendExitMeta(id, gen.TerminateReasonNormal)) })
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrTerminated)
		_, err = peer.Read(make([]byte, 1))
		assert.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	})
}

// After a half-close there is no upgrade, and nobody waits for one.
func TestStartTLSAfterCloseWrite(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(startTLSServer(m))
		peer := dialTCP(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		exchange(t, a, peer, "STARTTLS")
		a.send(id, meta.MessageTCPCloseWrite{})
		a.send(id, meta.MessageTCPStartTLS{Reply: []byte("go ahead\n")})
		disconnect := expect[meta.MessageTCPDisconnect](a)
		assert.ErrorIs(t, disconnect.Reason, meta.ErrStartTLS)
		assert.ErrorContains(t, disconnect.Reason, "closed for writing")
	})
}

// The same holds for a client: what came with the server's agreement did not come over TLS.
func TestStartTLSInjectionIntoClient(t *testing.T) {
	for name, inject := range map[string]string{"with the agreement": "OK\nEVIL\n", "half a line": "OK\nEV", "a later packet": "OK\n"} {
		t.Run(name, func(t *testing.T) {
			tlsModes(t, func(t *testing.T, m mode) {
				listener := newListener(t)
				defer listener.Close()
				a := newHost(t).spawn(nil)
				id := a.connect(meta.TCPConnectionOptions{
					Host: "127.0.0.1", Port: portOf(t, listener.Addr().String()), CertManager: m.manager,
					StartTLS: true, Active: 1, Split: bufio.ScanLines,
				})
				server, err := listener.Accept()
				require.NoError(t, err)
				defer server.Close()
				require.NoError(t, server.SetDeadline(time.Now().Add(testTimeout)))
				expect[meta.MessageTCPConnect](a)
				_, err = io.WriteString(server, inject)
				require.NoError(t, err)
				assert.Equal(t, "OK", string(expect[meta.MessageTCP](a).Data))
				expect[meta.MessageTCPPassive](a)
				if name == "a later packet" {
					_, err = io.WriteString(server, "EVIL\n")
					require.NoError(t, err)
				}
				a.send(id, meta.MessageTCPStartTLS{})
				disconnect := expect[meta.MessageTCPDisconnect](a)
				assert.ErrorIs(t, disconnect.Reason, meta.ErrStartTLS)
				assert.ErrorContains(t, disconnect.Reason, "in the clear")
				got, err := io.ReadAll(server)
				assertEnded(t, err)
				assert.Empty(t, got, "there is no ClientHello")
			})
		})
	}
}

// The deadline of the write before the upgrade is not one for the handshake.
func TestStartTLSAfterWriteTimeout(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		for name, listener := range map[string]net.Listener{"socket": newListener(t), "not a socket": wrappingListener{newListener(t)}} {
			t.Run(name, func(t *testing.T) {
				a := newHost(t).spawn(nil)
				options := startTLSServer(m)
				options.Listener, options.WriteTimeout = listener, 50*time.Millisecond
				_, addr := a.listen(options)
				conn := dialTCP(t, addr)
				id := expect[meta.MessageTCPConnect](a).ID
				a.send(id, meta.MessageTCPStartTLS{Reply: []byte("go ahead\n")})
				_, err := bufio.NewReader(conn).ReadString('\n')
				require.NoError(t, err)
				time.Sleep(2 * options.WriteTimeout)
				peer := tls.Client(conn, m.client)
				require.NoError(t, peer.Handshake())
				expect[meta.MessageTCPSecured](a)
				exchange(t, a, peer, "over TLS")
			})
		}
	})
}
