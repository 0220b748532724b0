// Package conninfo has the data about a connection that packages meta and certmanager share.
// Neither imports the other.
package conninfo

import (
	"fmt"
	"net"
	"strings"
)

// Addr is the remote address of a connection, with other fields of its log lines.
type Addr struct {
	net.Addr
	Local      net.Addr
	Connection fmt.Stringer // the ID in package meta; nil for other connections
}

// RemoteAddr returns the address of a connection's peer as an [Addr]. It is nil if conn is nil, as
// in QUIC.
func RemoteAddr(conn net.Conn) net.Addr {
	if conn == nil || conn.RemoteAddr() == nil || conn.LocalAddr() == nil {
		return nil
	}
	a := Addr{Addr: conn.RemoteAddr(), Local: conn.LocalAddr()}
	if named, ok := conn.(interface{ ConnectionID() fmt.Stringer }); ok {
		a.Connection = named.ConnectionID()
	}
	return a
}

// NoCertificate reports whether crypto/tls refused a client because it sent no certificate. The
// error has no type: this compares the text of crypto/tls, which tests of both packages check.
func NoCertificate(err error) bool {
	return err != nil && strings.Contains(err.Error(), "tls: client didn't provide a certificate")
}
