package meta

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// unixFiles is held while a unix socket is bound, so that one server of a program does not remove
// another's new socket as stale.
var unixFiles sync.Mutex

// inUseWait is how long to wait for an address in use: a supervisor may restart a process before
// the server of the previous one has ended.
const inUseWait = time.Second

// listen opens the listening socket of the options.
func listen(o *TCPServerOptions) (net.Listener, error) {
	for deadline := time.Now().Add(inUseWait); ; time.Sleep(5 * time.Millisecond) {
		listener, err := listenOnce(o)
		if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(deadline) {
			return listener, err
		}
	}
}

func listenOnce(o *TCPServerOptions) (net.Listener, error) {
	if o.Listener != nil {
		return o.Listener, nil
	}
	config := net.ListenConfig{KeepAlive: -1}
	if o.ReusePort {
		config.Control = reusePort
	}
	if o.UnixPath != "" {
		return listenUnix(&config, o)
	}
	listener, err := listenHost(&config, o.Host, o.Port)
	if err != nil {
		return nil, listenError("tcp "+net.JoinHostPort(o.Host, strconv.Itoa(int(o.Port))), err)
	}
	return listener, nil
}

func listenUnix(config *net.ListenConfig, o *TCPServerOptions) (net.Listener, error) {
	unixFiles.Lock()
	defer unixFiles.Unlock()
	path, mode := o.UnixPath, o.UnixMode
	if mode != 0 {
		first := mode
		if o.UnixOwner != "" {
			first &= 0o700 // until the group is set
		}
		// Before the socket is bound: on Linux its file then has no more permissions (unix(7)). Other
		// systems may not do so.
		config.Control = func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) { _ = fchmod(int(fd), uint32(first)) })
		}
	}
	listener, err := config.Listen(context.Background(), "unix", path)
	if errors.Is(err, syscall.EADDRINUSE) && removeStale(path) {
		listener, err = config.Listen(context.Background(), "unix", path)
	}
	if err != nil {
		return nil, listenError("unix "+path, err)
	}
	if o.UnixOwner != "" {
		uid, gid, _ := unixOwner(o.UnixOwner) // parse has checked it
		if err = os.Chown(path, uid, gid); err != nil {
			err = fmt.Errorf("UnixOwner: %w; a change of owner needs a privilege (CAP_CHOWN), except to a group of this process", err)
		}
	}
	if err == nil && mode != 0 {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		listener.Close()
		return nil, listenError("unix "+path, err)
	}
	return listener, nil
}

// unixOwner returns the numbers of "user", "user:group" or ":group", -1 for none.
func unixOwner(owner string) (uid, gid int, err error) {
	name, group, _ := strings.Cut(owner, ":")
	uid, gid = -1, -1
	if name != "" {
		found, failed := user.Lookup(name)
		if failed != nil {
			found = &user.User{Uid: name}
		}
		if uid, err = strconv.Atoi(found.Uid); err != nil || uid < 0 {
			return 0, 0, fmt.Errorf("there is no user %q", name)
		}
	}
	if group != "" {
		found, failed := user.LookupGroup(group)
		if failed != nil {
			found = &user.Group{Gid: group}
		}
		if gid, err = strconv.Atoi(found.Gid); err != nil || gid < 0 {
			return 0, 0, fmt.Errorf("there is no group %q", group)
		}
	}
	return uid, gid, nil
}

func listenError(where string, err error) error {
	return fmt.Errorf("%w on %s: %w%s", ErrListen, where, err, listenAdvice(err))
}

func listenAdvice(err error) string {
	unknown, _ := errors.AsType[*net.DNSError](err)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "; another program or server has it, or UnixPath is not a socket; end or remove that, or choose another"
	case errors.Is(err, syscall.EACCES):
		return "; ports below 1024 need a privilege (CAP_NET_BIND_SERVICE), and a unix socket a folder that can be written"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "; Host is not an address of this machine"
	case unknown != nil && unknown.IsNotFound:
		return "; use an IP address of this machine as Host, or none for all interfaces"
	}
	return ""
}

// removeStale removes a socket file without a listener, as a killed program leaves it. The caller
// holds unixFiles.
//
// Two short races remain: another program may create its own socket there between the dial and the
// removal, and may have bound it and not listen yet.
func removeStale(path string) (removed bool) {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return false
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED) && os.Remove(path) == nil
}

const (
	// maxKeepAlive is Linux's limit of TCP_KEEPIDLE and TCP_KEEPINTVL (net/tcp.h,
	// MAX_TCP_KEEPIDLE).
	maxKeepAlive = 32767 * time.Second
	// maxKeepAliveCount is Linux's limit of TCP_KEEPCNT (MAX_TCP_KEEPCNT).
	maxKeepAliveCount = 127
	// maxUserTimeout is what TCP_USER_TIMEOUT, an int of milliseconds, holds.
	maxUserTimeout = math.MaxInt32 * time.Millisecond
)

// setTimeouts sets the TCP options that detect a dead peer. As in package net, an error does not
// end the connection: Linux before 6.10 lacks these options on the MPTCP sockets that Go's
// listeners accept.
func (o *TCPConnectionOptions) setTimeouts(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	tcp.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: o.KeepAlivePeriod > 0, Idle: o.KeepAlivePeriod, Interval: o.KeepAlivePeriod, Count: o.KeepAliveCount,
	})
	if raw, err := tcp.SyscallConn(); err == nil && o.UserTimeout > 0 {
		raw.Control(func(fd uintptr) { setUserTimeout(int(fd), o.UserTimeout) })
	}
}
