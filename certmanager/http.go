package certmanager

import (
	"crypto/tls"
	"net"
	"net/http"
	"reflect"

	"github.com/ergotls/ergotls/internal/conninfo"
)

// ConnState is for http.Server.ConnState. With it the Manager tracks the connections of an HTTP
// server from the handshake on (see [Manager.Track]), closes those whose client is no longer
// accepted, and reports refused clients. It does not track hijacked connections, such as
// WebSockets: use [Manager.NewListener] for those.
//
//	server := &http.Server{TLSConfig: m.ServerTLS(), ConnState: m.ConnState}
func (m *Manager) ConnState(c net.Conn, state http.ConnState) {
	conn, ok := c.(*tls.Conn)
	if !ok {
		return
	}
	if _, known := conn.NetConn().(*trackedConn); known { // tracked by NewListener
		return
	}
	var key any = conn.NetConn() // the key that the handshake uses too
	if !reflect.ValueOf(key).Comparable() {
		key = conn // tracked from its first request on
	}
	switch state {
	case http.StateNew: // called before the handshake
		m.http.Store(key, &httpConn{raw: conn.NetConn(), remote: conninfo.RemoteAddr(c), track: m.Accepting()})
	case http.StateActive, http.StateIdle:
		known, _ := m.http.LoadOrStore(key, &httpConn{raw: conn.NetConn(), remote: conninfo.RemoteAddr(c), track: m.Accepting()})
		tlsState := conn.ConnectionState()
		known.(*httpConn).known(&tlsState) // unless a handshake with our config has done so
	case http.StateClosed, http.StateHijacked:
		known, ok := m.http.LoadAndDelete(key)
		if !ok {
			return
		}
		if h := known.(*httpConn); h.release != nil {
			h.release()
		} else if state == http.StateClosed {
			m.ReportRefused(conn.Handshake(), h.remote) // Handshake returns its result again
		}
	}
}

// httpConn is a connection of ConnState. Its methods are called one at a time, on the server's
// goroutine for the connection.
type httpConn struct {
	raw     net.Conn
	remote  net.Addr
	track   func(*tls.ConnectionState, net.Addr, func(error)) (release func())
	release func() // nil until the connection is tracked
}

// known tracks the connection once it has a peer.
func (h *httpConn) known(state *tls.ConnectionState) {
	if h.release == nil {
		// Closing the connection below TLS does not wait for a peer that does not read.
		h.release = h.track(state, h.remote, func(error) { h.raw.Close() })
	}
}

// httpConnOf returns the connection of a handshake, nil if ConnState does not know it.
func (m *Manager) httpConnOf(hello *tls.ClientHelloInfo) *httpConn {
	if hello.Conn == nil || !reflect.ValueOf(hello.Conn).Comparable() {
		return nil
	}
	known, _ := m.http.Load(hello.Conn)
	h, _ := known.(*httpConn)
	return h
}
