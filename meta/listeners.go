package meta

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// listenHost listens on all addresses of host, on one port. Package net would listen on only one of
// them (golang/go#9334), and clients that use another could not connect.
func listenHost(config *net.ListenConfig, host string, port uint16) (net.Listener, error) {
	addrs := addresses(host)
	for try := 1; ; try++ {
		all, err := listenOn(config, addrs, port)
		switch {
		case err == nil && len(all) == 1:
			return all[0], nil
		case err == nil:
			ctx, cancel := context.WithCancel(context.Background())
			l := &listeners{all: all, accepted: make(chan accepted), closed: ctx.Done(), cancel: cancel}
			for _, listener := range all {
				go l.accept(listener)
			}
			return l, nil
		case port != 0 || len(addrs) == 1 || !errors.Is(err, syscall.EADDRINUSE) || try == 10:
			return nil, err
		} // the port was free on one address and taken on another: try again
	}
}

// addresses returns the addresses of a host to listen on. For localhost these are both loopback
// addresses, whatever the resolver returns (RFC 6761 section 6.3).
func addresses(host string) []string {
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return []string{host}
	}
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return []string{"127.0.0.1", "::1"}
	}
	ips, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip", host)
	if err != nil || len(ips) == 0 {
		return []string{host} // listening there returns the error
	}
	var addrs []string
	for _, ip := range ips {
		if addr := ip.Unmap().String(); !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// listenOn listens on each address with the same port, 0 for any. Addresses that this machine does
// not have are skipped if it has others.
func listenOn(config *net.ListenConfig, addrs []string, port uint16) (all []net.Listener, err error) {
	for _, addr := range addrs {
		listener, failed := config.Listen(context.Background(), "tcp", net.JoinHostPort(addr, strconv.Itoa(int(port))))
		if failed == nil {
			all = append(all, listener)
			port = uint16(listener.Addr().(*net.TCPAddr).Port)
			continue
		}
		err = failed
		if !errors.Is(failed, syscall.EADDRNOTAVAIL) && !errors.Is(failed, syscall.EAFNOSUPPORT) {
			for _, listener := range all {
				listener.Close()
			}
			return nil, failed
		}
	}
	if len(all) > 0 {
		return all, nil
	}
	return nil, err
}

// listeners combines several listeners into one. It has a goroutine for each, which ends with Close
// and holds at most one connection that Accept has not returned yet.
type listeners struct {
	all      []net.Listener
	accepted chan accepted
	closed   <-chan struct{} // closed by cancel
	cancel   context.CancelFunc
}

type accepted struct {
	conn net.Conn
	err  error
}

// Accept implements net.Listener.
func (l *listeners) Accept() (net.Conn, error) {
	select {
	case a := <-l.accepted:
		return a.conn, a.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listeners) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		select {
		case l.accepted <- accepted{conn, err}:
		case <-l.closed:
			if err == nil {
				conn.Close()
			}
			return
		}
	}
}

// Close implements net.Listener.
func (l *listeners) Close() (err error) {
	l.cancel()
	for _, listener := range l.all {
		err = errors.Join(err, listener.Close())
	}
	return err
}

// Addr implements net.Listener. It returns the first address.
func (l *listeners) Addr() net.Addr { return l.all[0].Addr() }

// listenerAddrs returns all addresses of a listener, for the log.
func listenerAddrs(listener net.Listener) string {
	l, ok := listener.(*listeners)
	if !ok {
		return listener.Addr().String()
	}
	var addrs []string
	for _, one := range l.all {
		addrs = append(addrs, one.Addr().String())
	}
	return strings.Join(addrs, " and ")
}
