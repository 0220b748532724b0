package meta_test

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// rstBy resets the connection of a peer.
func rstBy(t *testing.T, peer net.Conn) {
	t.Helper()
	require.NoError(t, rawTCP(peer).SetLinger(0))
	require.NoError(t, rawTCP(peer).Close())
}

// A reset in any phase before Connect is heard of by nobody, takes no slot with it and is counted.
func TestResetBeforeConnect(t *testing.T) {
	for name, test := range map[string]struct {
		sends string
		plain bool // also where there is no TLS
	}{
		"at once":                {"", true},
		"in the PROXY header":    {"PROXY TCP4 192.0.2.7", true},
		"after the header":       {"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n", false},
		"in the ClientHello":     {"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n\x16\x03\x01\x01\x00\x01\x00", false},
		"in a record's header":   {"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n\x16\x03", false},
		"after what is no TLS":   {"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\nGET / HTTP/1.1\r\n\r\n", false},
		"after what is no PROXY": {"GET / HTTP/1.1\r\n\r\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			over := tlsModes // in the clear the header is all that comes before Connect
			if test.plain {
				over = eachMode
			}
			over(t, func(t *testing.T, m mode) {
				a := newHost(t).spawn(nil)
				server, addr := a.listen(meta.TCPServerOptions{
					CertManager: m.manager, MaxConnections: 1, ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
				})
				for range 5 {
					peer := dialTCP(t, addr)
					_, err := io.WriteString(peer, test.sends)
					require.NoError(t, err)
					rstBy(t, peer)
				}
				eventually(t, func() bool { return a.inspect(server)["refused"] == "5" }, "all are counted")
				eventually(t, func() bool { return a.inspect(server)["connections establishing"] == "0" }, "nothing is left of them")
				a.quiet()
			})
		})
	}
}

// A reset in any phase after Connect ends the connection with that reason, once, and frees its
// slot.
func TestResetAfterConnect(t *testing.T) {
	for name, test := range map[string]struct {
		options meta.TCPServerOptions
		act     func(t *testing.T, a *actor, id gen.Alias, peer net.Conn) // before the reset
	}{
		"at once": {act: func(*testing.T, *actor, gen.Alias, net.Conn) {}},
		"in a frame": {meta.TCPServerOptions{Split: bufio.ScanLines}, func(t *testing.T, a *actor, _ gen.Alias, peer net.Conn) {
			_, err := io.WriteString(peer, "whole\nhalf")
			require.NoError(t, err)
			assert.Equal(t, "whole", string(expect[meta.MessageTCP](a).Data))
		}},
		"while we write": {meta.TCPServerOptions{}, func(t *testing.T, a *actor, id gen.Alias, peer net.Conn) {
			a.send(id, meta.MessageTCP{Data: make([]byte, 32<<20)})
			_, err := io.ReadFull(peer, make([]byte, 100_000))
			require.NoError(t, err)
		}},
		"while we wait for room": {meta.TCPServerOptions{}, func(t *testing.T, a *actor, id gen.Alias, peer net.Conn) {
			for range 2 {
				a.send(id, meta.MessageTCP{Data: make([]byte, 32<<20)})
			}
			_, err := io.ReadFull(peer, make([]byte, 100_000))
			require.NoError(t, err)
			a.busy(id)
		}},
		"after our half-close": {meta.TCPServerOptions{}, func(t *testing.T, a *actor, id gen.Alias, peer net.Conn) {
			a.send(id, meta.MessageTCPCloseWrite{})
			got, err := io.ReadAll(peer)
			require.NoError(t, err)
			assert.Empty(t, got)
		}},
		"while passive, with something to write": {meta.TCPServerOptions{Active: 1}, func(t *testing.T, a *actor, id gen.Alias, peer net.Conn) {
			_, err := io.WriteString(peer, "x")
			require.NoError(t, err)
			expect[meta.MessageTCP](a)
			expect[meta.MessageTCPPassive](a)
			a.send(id, meta.MessageTCP{Data: make([]byte, 32<<20)})
			_, err = io.ReadFull(peer, make([]byte, 100_000))
			require.NoError(t, err)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				a := newHost(t).spawn(nil)
				options := test.options
				options.CertManager, options.MaxConnections = m.manager, 1
				server, addr := a.listen(options)
				for range 3 {
					peer := m.dial(t, addr)
					id := expect[meta.MessageTCPConnect](a).ID
					test.act(t, a, id, peer)
					rstBy(t, peer)
					disconnect := expect[meta.MessageTCPDisconnect](a)
					assert.Equal(t, id, disconnect.ID)
					assert.ErrorIs(t, disconnect.Reason, meta.ErrReset)
				}
				eventually(t, func() bool { return a.inspect(server)["connections"] == "0" }, "the slot is free")
				a.quiet()
			})
		})
	}
}

// A reset while the connection is being closed changes neither the reason nor that it ends.
func TestResetWhileClosing(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		server, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, CloseTimeout: 2 * testTimeout})
		for _, size := range []int{0, 32 << 20} { // waits for the peer's FIN, and for it to take what is left
			peer := m.dial(t, addr)
			id := expect[meta.MessageTCPConnect](a).ID
			a.send(id, meta.MessageTCP{Data: make([]byte, size)})
			a.send(id, meta.MessageTCPClose{})
			if size == 0 {
				assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrTerminated)
			} else {
				eventually(t, func() bool {
					return strings.HasPrefix(a.inspect(server, id.String())["state"], "ending")
				}, "it flushes")
				_, err := io.ReadFull(peer, make([]byte, 100_000))
				require.NoError(t, err)
			}
			rstBy(t, peer)
			if size > 0 {
				disconnect := expect[meta.MessageTCPDisconnect](a)
				assert.ErrorIs(t, disconnect.Reason, meta.ErrTerminated)
				assert.ErrorContains(t, disconnect.Reason, "bytes written)")
			}
			eventually(t, func() bool { return a.inspect(server)["connections"] == "0" }, "the slot is free")
		}
		a.quiet()
	})
}

// Nor does one in an upgrade hold anything up.
func TestResetInStartTLS(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		for _, sends := range []string{"", "\x16\x03\x01\x01\x00\x01\x00"} {
			a := newHost(t).spawn(nil)
			server, addr := a.listen(startTLSServer(m))
			peer := dialTCP(t, addr)
			id := expect[meta.MessageTCPConnect](a).ID
			exchange(t, a, peer, "STARTTLS")
			a.send(id, meta.MessageTCPStartTLS{Reply: []byte("go ahead\n")})
			_, err := io.ReadFull(peer, make([]byte, len("go ahead\n")))
			require.NoError(t, err)
			_, err = io.WriteString(peer, sends)
			require.NoError(t, err)
			rstBy(t, peer)
			reason := expect[meta.MessageTCPDisconnect](a).Reason
			assert.ErrorIs(t, reason, meta.ErrHandshake)
			eventually(t, func() bool { return a.inspect(server)["connections"] == "0" }, "the slot is free")
			a.quiet()
		}
	})
}
