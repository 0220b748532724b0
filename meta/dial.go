package meta

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"ergo.services/ergo/gen"
)

// CreateTCPConnection connects to a server and returns the meta process of the connection: pass it
// to SpawnMeta. If SpawnMeta fails, call Terminate of the result: it closes the connection.
//
// It blocks for the TCP connect, at most DialTimeout, unless Reconnect is set. The TLS handshake
// follows when the meta process runs; a failure is a [MessageTCPDisconnect]. Messages that are sent
// to the connection before its [MessageTCPConnect] wait for the handshake.
//
// The error wraps [ErrOption] and names every option that is wrong, or wraps [ErrDial].
func CreateTCPConnection(options TCPConnectionOptions) (gen.MetaBehavior, error) {
	if err := options.parse(); err != nil {
		return nil, err
	}
	targets := options.targets()
	if options.Reconnect != nil {
		return newReconnecting(&options, targets), nil
	}
	var errs []error
	for _, t := range targets {
		sock, err := dial(context.Background(), t, &options)
		if err == nil {
			c := newConnection(&options, nil, sock, nil)
			c.clientTLS = t.tls
			return c, nil
		}
		errs = append(errs, fmt.Errorf("%w %w", ErrDial, err))
	}
	return nil, errors.Join(errs...)
}

// targets returns the addresses to connect to, in order, with the TLS configuration for each.
func (o *TCPConnectionOptions) targets() (all []target) {
	if o.UnixPath != "" {
		return []target{{"unix", o.UnixPath, clientTLS(o)}}
	}
	addrs := o.Addrs
	if len(addrs) == 0 {
		addrs = []string{net.JoinHostPort(o.Host, strconv.Itoa(int(o.Port)))}
	}
	for _, addr := range addrs {
		named := *o
		named.Host, _, _ = net.SplitHostPort(addr) // parse has checked it
		all = append(all, target{"tcp", addr, clientTLS(&named)})
	}
	return all
}

// dial connects to a target within DialTimeout. It tries the addresses of a name as RFC 8305
// describes.
func dial(ctx context.Context, t target, o *TCPConnectionOptions) (*socket, error) {
	dialer := net.Dialer{Timeout: o.DialTimeout, KeepAlive: -1}
	conn, err := dialer.DialContext(ctx, t.network, t.address)
	if err != nil {
		return nil, fmt.Errorf("to %s %s: %w", t.network, t.address, err)
	}
	if o.Proxy != nil {
		header, _ := o.Proxy.format()                 // parse has checked it
		if _, err := conn.Write(header); err != nil { // the buffer of a new socket has room for it
			conn.Close()
			return nil, fmt.Errorf("to %s %s: the PROXY header was not written: %w", t.network, t.address, err)
		}
	}
	o.setTimeouts(conn)
	return newSocket(conn), nil
}
