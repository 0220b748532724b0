package certmanager

import (
	"crypto/tls"
	"net"
	"net/http"
)

// ConnState is for http.Server.ConnState: with it the manager knows the connections of
// an HTTP server, see [Manager.Track], and closes those that no longer hold.
//
//	server := &http.Server{TLSConfig: m.ServerTLS(), ConnState: m.ConnState}
//
// A connection is known from its first request on, and no longer once it is hijacked.
func (m *Manager) ConnState(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateActive:
		conn, ok := c.(*tls.Conn)
		if _, known := m.http.Load(c); known || !ok {
			return
		}
		tlsState := conn.ConnectionState()
		// The close below TLS does not wait for a peer that does not read.
		m.http.Store(c, m.Track(&tlsState, c.RemoteAddr(), func(error) { conn.NetConn().Close() }))
	case http.StateClosed, http.StateHijacked:
		if release, known := m.http.LoadAndDelete(c); known {
			release.(func())()
		}
	}
}
