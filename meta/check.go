package meta

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// check collects the faults of options, so that one error names them all.
type check struct{ errs []error }

func (c *check) refuse(wrong bool, format string, args ...any) {
	if wrong {
		c.errs = append(c.errs, fmt.Errorf("%w: "+format, append([]any{ErrOption}, args...)...))
	}
}

// numbers refuses negative numbers and durations in the fields of a struct of options. Only
// KeepAlivePeriod may be negative. A duration below a millisecond is refused too: it is a number
// without its unit.
func (c *check) numbers(prefix string, options any) {
	for field, value := range reflect.ValueOf(options).Fields() {
		name := prefix + field.Name
		switch v := value.Interface().(type) {
		case int:
			c.refuse(v < 0, "%s: is %d; use 0 for the default, or a positive number", name, v)
		case time.Duration:
			c.refuse(v < 0 && name != "KeepAlivePeriod", "%s: is %s; use 0 for the default, or a positive duration", name, v)
			c.refuse(0 < v && v < time.Millisecond, "%s: is %s; use at least 1ms. A number alone is nanoseconds: multiply it by time.Second", name, v)
		}
	}
}

// notNil refuses an interface with a nil pointer in it, which does not equal nil and panics when
// used.
func (c *check) notNil(option string, value any) (ok bool) {
	v := reflect.ValueOf(value)
	ok = value == nil || v.Kind() != reflect.Pointer || !v.IsNil()
	c.refuse(!ok, "%s: is a nil %T; leave it unset, or set it after its value was made", option, value)
	return ok
}

// host refuses a value that is neither a name nor an address, and names the option for the rest of
// it.
func (c *check) host(option, host string) {
	addr, noAddr := netip.ParseAddr(host)
	name, port, noPort := net.SplitHostPort(host)
	foreign := strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("/*,@", r) })
	switch {
	case host == "":
	case host == "*" && option == "Host":
		c.refuse(true, "Host: %q is not a host name or an IP address; a server whose Host is empty listens on all interfaces", host)
	case foreign:
		c.refuse(true, "%s: %q is not a host name or an IP address", option, host)
	case noPort == nil && option == "Host":
		c.refuse(true, "Host: %q has a port; use Host: %q and Port: %s", host, name, cmp.Or(port, "0"))
	case noPort == nil:
		c.refuse(true, "%s: %q has a port; use %s: %q", option, host, option, name)
	case strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]"):
		c.refuse(true, "%s: %q has brackets; use %s: %q", option, host, option, host[1:len(host)-1])
	case noAddr != nil && strings.Contains(host, ":"):
		c.refuse(true, "%s: %q is not a host name or an IP address", option, host)
	case option == "Host" && addr.Is6() && addr.IsLinkLocalUnicast() && addr.Zone() == "":
		c.refuse(true, "Host: %q is a link-local address, which needs the interface; use Host: %q, with its name", host, host+"%eth0")
	}
}

// unixPath refuses a path that the system would refuse or cut off.
func (c *check) unixPath(path string) {
	const most = len(syscall.RawSockaddrUnix{}.Path) - 1
	c.refuse(len(path) > most, "UnixPath: %q has %d bytes; use at most %d", path, len(path), most)
	c.refuse(strings.Contains(path, "\x00"), "UnixPath: %q has a zero byte; an abstract socket (Linux) begins with @", path)
}

// abstract reports whether a path is the name of an abstract socket (unix(7)).
func abstract(path string) bool { return runtime.GOOS == "linux" && strings.HasPrefix(path, "@") }

// Optional methods of a gen.CertManager. *certmanager.Manager has them.
type (
	// doner is a manager with a channel that is closed with it.
	doner interface{ Done() <-chan struct{} }
	// readier is a manager that can tell why a server can't use it: it has no certificate and no way
	// to get one.
	readier interface{ Ready() error }
)

// manager refuses a CertManager with which every handshake would fail.
func (c *check) manager(manager any, server bool) {
	v := reflect.ValueOf(manager)
	closer, closes := manager.(doner)
	teller, tells := manager.(readier)
	switch {
	case manager == nil:
	case v.Kind() == reflect.Pointer && v.IsNil():
		c.refuse(true, "CertManager: is a nil %T; make one (certmanager.New) before this, or leave the option unset for no TLS", manager)
	case closes && isClosed(closer.Done()):
		c.refuse(true, "CertManager: it was closed, or certmanager.New did not make it; close it after what uses it")
	case tells && server:
		err := teller.Ready()
		c.refuse(err != nil, "CertManager: %w", err)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (c *check) err() error { return errors.Join(c.errs...) }
