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
	conn, ok := c.(*tls.Conn)
	if !ok {
		return
	}
	switch state {
	case http.StateNew: // before the handshake
		m.http.Store(c, &httpConn{track: m.Handshake()})
	case http.StateActive:
		known, ok := m.http.Load(c)
		if !ok {
			known = &httpConn{track: m.Track} // since the middle of its life
			m.http.Store(c, known)
		}
		if h := known.(*httpConn); h.release == nil {
			tlsState := conn.ConnectionState()
			// The close below TLS does not wait for a peer that does not read.
			h.release = h.track(&tlsState, c.RemoteAddr(), func(error) { conn.NetConn().Close() })
		}
	case http.StateClosed, http.StateHijacked:
		if known, ok := m.http.LoadAndDelete(c); ok && known.(*httpConn).release != nil {
			known.(*httpConn).release()
		}
	}
}

// httpConn is a connection of ConnState. Its calls come one after the other.
type httpConn struct {
	track   func(*tls.ConnectionState, net.Addr, func(error)) (release func())
	release func() // nil before the first request
}
