package meta_test

import (
	"io"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// A load balancer that looks whether the port is open fails no handshake, however often it does so,
// and fills no log.
func TestHealthChecks(t *testing.T) {
	local, err := (&proxyproto.Header{Version: 2, Command: proxyproto.LOCAL}).Format()
	require.NoError(t, err)
	const client = "PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n"
	checks := map[string]func(conn net.Conn){
		"closes":           func(conn net.Conn) { conn.Close() },
		"half-closes":      func(conn net.Conn) { conn.(*net.TCPConn).CloseWrite() },
		"resets":           func(conn net.Conn) { conn.(*net.TCPConn).SetLinger(0); conn.Close() },
		"stays":            func(net.Conn) {},
		"half a hello":     func(conn net.Conn) { io.WriteString(conn, "\x16\x03\x01\x02\x00\x01\x00"); conn.Close() },
		"LOCAL":            func(conn net.Conn) { conn.Write(local); conn.Close() },
		"LOCAL, and stays": func(conn net.Conn) { conn.Write(local) },
		"PROXY":            func(conn net.Conn) { io.WriteString(conn, client); conn.Close() },
	}
	tlsModes(t, func(t *testing.T, m mode) {
		for name, check := range checks {
			for _, proxied := range []bool{false, true} {
				if !proxied && (len(name) >= 5 && (name[:5] == "LOCAL" || name == "PROXY")) || proxied && name == "half a hello" {
					continue
				}
				t.Run(name+" proxied="+strconv.FormatBool(proxied), func(t *testing.T) {
					options := meta.TCPServerOptions{CertManager: m.manager, MaxHandshakeFailures: 1, HandshakeTimeout: 2 * time.Second}
					if name == "stays" || name == "LOCAL, and stays" {
						options.HandshakeTimeout = 100 * time.Millisecond
					}
					if proxied {
						options.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
					}
					a := newHost(t).spawn(echo)
					id, addr := a.listen(options)
					const many = 3
					for range many {
						check(dialTCP(t, addr))
					}
					eventually(t, func() bool { return a.inspect(id)["refused"] == strconv.Itoa(many) }, "they are over")
					assert.Equal(t, "0", a.inspect(id)["handshake failures"])
					assert.NotContains(t, a.h.log.String(), "[warning]")
					a.quiet()
				})
			}
		}
	})
}
