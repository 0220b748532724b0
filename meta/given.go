package meta

import (
	"context"
	"crypto/tls"
	"net"
	"reflect"
	"time"
)

// tlsConn is what a TLS connection of a given listener offers: a *tls.Conn, or what embeds one.
type tlsConn interface {
	net.Conn
	HandshakeContext(context.Context) error
	ConnectionState() tls.ConnectionState
}

// givenTLS returns the TLS connection that conn is, or that is in its embedded net.Conn; nil if
// there is none. Who reads from it before its handshake makes one, without a limit in time.
func givenTLS(conn net.Conn) tlsConn {
	for range 8 {
		if secure, ok := conn.(tlsConn); ok {
			return secure
		}
		v := reflect.Indirect(reflect.ValueOf(conn))
		if v.Kind() != reflect.Struct {
			return nil
		}
		field := v.FieldByName("Conn")
		if !field.IsValid() || !field.CanInterface() {
			return nil
		}
		inner, ok := field.Interface().(net.Conn)
		if !ok {
			return nil
		}
		conn = inner
	}
	return nil
}

// isTLSListener says that a listener is one of tls.NewListener.
func isTLSListener(listener net.Listener) bool {
	return listener != nil && reflect.TypeOf(listener) == reflect.TypeOf(tls.NewListener(nil, &tls.Config{}))
}

// givenHandshake makes the handshake of a TLS connection that a given listener has accepted.
func (c *tcpConnection) givenHandshake(deadline time.Time) (*tls.ConnectionState, error) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	if err := c.cancelBy(cancel); err != nil {
		return nil, err
	}
	defer c.cancelBy(nil)
	if err := protect("handshake", func() error { return c.given.HandshakeContext(ctx) }); err != nil {
		return nil, notTLS(err)
	}
	state := c.given.ConnectionState()
	return &state, nil
}
