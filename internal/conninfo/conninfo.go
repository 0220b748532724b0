// Package conninfo has what packages meta and certmanager, neither of which imports the other, both
// know of a connection.
package conninfo

import (
	"net"
	"strings"
)

// Addr is the remote address of a connection, with what else finds its log lines.
type Addr struct {
	net.Addr
	Local      net.Addr
	Connection string // what package meta calls the connection; empty for connections of others
}

// RemoteAddr returns the address of a connection's peer as an [Addr]. It is nil where conn is, as
// in QUIC.
func RemoteAddr(conn net.Conn) net.Addr {
	if conn == nil || conn.RemoteAddr() == nil || conn.LocalAddr() == nil {
		return nil
	}
	a := Addr{Addr: conn.RemoteAddr(), Local: conn.LocalAddr()}
	if named, ok := conn.(interface{ ConnectionID() string }); ok {
		a.Connection = named.ConnectionID()
	}
	return a
}

// NoCertificate says that a client was refused by crypto/tls because it showed no certificate.
// There is no type for it: the text is that of crypto/tls, and tests of both packages hold it to
// that.
func NoCertificate(err error) bool {
	return err != nil && strings.Contains(err.Error(), "tls: client didn't provide a certificate")
}
