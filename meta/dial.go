package meta

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"

	"ergo.services/ergo/gen"
)

// CreateTCPConnection connects to a server and returns the meta process of the connection: hand it to SpawnMeta. If
// SpawnMeta fails, call Terminate of what was returned: it closes the connection.
//
// It blocks for the TCP connect, at most DialTimeout. The TLS handshake follows when the meta
// process runs; a failure is told by a [MessageTCPDisconnect]. What is sent to the connection before its
// [MessageTCPConnect] waits for the handshake.
//
// The error wraps [ErrOption] and names every option that is wrong, or wraps [ErrDial].
func CreateTCPConnection(options TCPConnectionOptions) (gen.MetaBehavior, error) {
	if err := options.parse(); err != nil {
		return nil, err
	}
	config, err := clientTLS(&options)
	if err != nil {
		return nil, err
	}
	network, address := "tcp", net.JoinHostPort(options.Host, strconv.Itoa(int(options.Port)))
	if options.UnixPath != "" {
		network, address = "unix", options.UnixPath
	}
	dialer := net.Dialer{Timeout: options.DialTimeout, KeepAlive: -1}
	conn, err := dialer.Dial(network, address)
	if err != nil {
		return nil, fmt.Errorf("%w to %s %s: %w%s", ErrDial, network, address, err, dialAdvice(err))
	}
	setKeepAlive(conn, options.KeepAlivePeriod)
	var to any
	if options.Process != "" {
		to = options.Process
	}
	c := newConnection(&options, nil, newSocket(conn), to)
	c.clientTLS = config
	return c, nil
}

func dialAdvice(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "; nobody listens there"
	case timeout(err):
		return "; raise DialTimeout if it is only slow"
	}
	return ""
}

// serverName gives the name that the server's certificate must cover.
func (o *TCPConnectionOptions) serverName() string {
	name := o.ServerName
	if manager, ok := o.CertManager.(interface{ ServerName() string }); ok && name == "" {
		name = manager.ServerName()
	}
	return cmp.Or(name, o.Host)
}
