package meta

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"
)

// tlsConn has the methods of a TLS connection of a given listener: a *tls.Conn, or a type that
// embeds one.
type tlsConn interface {
	net.Conn
	HandshakeContext(context.Context) error
	ConnectionState() tls.ConnectionState
}

// findAddr stores the address of a connection of a given Listener. Its RemoteAddr may block until
// the peer has sent a header, so the accept loop does not call it, and may return nil after Close.
func (c *tcpConnection) findAddr() error {
	var addr net.Addr = noAddr{}
	err := protect("RemoteAddr", func() error {
		found := c.sock.Conn.RemoteAddr()
		limitAddr(found) // an address that panics does so here
		addr = found
		return nil
	})
	c.sock.remote.Store(&addr)
	return err
}

// givenTLS returns conn or its embedded net.Conn if that is a TLS connection, else nil. A read
// before its handshake would start one without a time limit.
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

// isTLSListener reports whether a listener was made by tls.NewListener.
func isTLSListener(listener net.Listener) bool {
	return listener != nil && reflect.TypeOf(listener) == reflect.TypeOf(tls.NewListener(nil, &tls.Config{}))
}

// givenHandshake performs the handshake of a TLS connection that a given listener has accepted.
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

// SystemdListeners returns the listening sockets that systemd has opened for this process
// (sd_listen_fds(3)), for [TCPServerOptions.Listener]: those of a socket unit with
// FileDescriptorName=name, or all if name is empty. Such a service needs no privilege for its port,
// and clients that connect during its restart wait. Each call makes new listeners: close the ones
// that you do not use. Linux only.
//
// The error wraps [ErrListen]. No socket of that name is an error too.
func SystemdListeners(name string) ([]net.Listener, error) {
	var listeners []net.Listener
	err := errors.New("systemd has opened none for this process; set FileDescriptorName in the socket unit, and start the service by it")
	for _, file := range systemdSockets() {
		if name != "" && name != file.Name() {
			continue
		}
		var listener net.Listener
		if listener, err = net.FileListener(file); err != nil {
			break
		}
		listeners = append(listeners, listener)
	}
	if err != nil {
		for _, listener := range listeners {
			listener.Close()
		}
		return nil, fmt.Errorf("%w on the sockets with the name %q: %w", ErrListen, name, err)
	}
	return listeners, nil
}

// systemdSockets returns the sockets, each with its name. They stay open.
var systemdSockets = sync.OnceValue(func() (files []*os.File) {
	const first = 3 // SD_LISTEN_FDS_START
	if closeOnExec == nil || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil // the variables were inherited from another process
	}
	count, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for i := range count {
		name := "unknown" // as sd_listen_fds_with_names has it
		if i < len(names) && names[i] != "" {
			name = names[i]
		}
		closeOnExec(first + i)
		files = append(files, os.NewFile(uintptr(first+i), name))
	}
	return files
})
