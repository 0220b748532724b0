package meta_test

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// A connection has the probes of its server's options, whether the server has made its listener or
// was given it. What the kernel says of them is the time until the first.
func TestKeepAlive(t *testing.T) {
	for _, given := range []bool{false, true} {
		for period, want := range map[time.Duration]time.Duration{-1: 0, 100 * time.Second: 100 * time.Second, 1500 * time.Millisecond: 2 * time.Second, 0: 15 * time.Second} {
			t.Run(fmt.Sprintf("given=%v/%v", given, period), func(t *testing.T) {
				options := meta.TCPServerOptions{KeepAlivePeriod: period}
				if given {
					options.Listener = newListener(t)
				}
				_, addr := newHost(t).spawn(echo).listen(options)
				peer := dialTCP(t, addr)
				talk(t, peer)
				eventually(t, func() bool { // at first the kernel may wait for an acknowledgement
					return (keepAliveTimer(t, addr, peer.LocalAddr()) - want).Abs() <= time.Second
				}, "the probes of the option")
			})
		}
	}
	const most = 32767 * time.Second
	newHost(t).spawn(echo).listen(meta.TCPServerOptions{KeepAlivePeriod: most}) // the kernel takes it
	_, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: "127.0.0.1", KeepAlivePeriod: most + 1})
	require.ErrorIs(t, err, meta.ErrOption)
	assert.ErrorContains(t, err, "KeepAlivePeriod")
}

// The number of probes is the option's too.
func TestKeepAliveCount(t *testing.T) {
	for count, want := range map[int]int{0: 9, 3: 3, 127: 127} {
		listener := shownListener{newListener(t), make(chan net.Conn, 1)}
		_, addr := newHost(t).spawn(echo).listen(meta.TCPServerOptions{Listener: listener, KeepAliveCount: count})
		talk(t, dialTCP(t, addr)) // by then the options are set
		raw, err := (<-listener.accepted).(*net.TCPConn).SyscallConn()
		require.NoError(t, err)
		got := 0
		require.NoError(t, raw.Control(func(fd uintptr) {
			got, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT)
		}))
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
}

// shownListener shows the connections that a server gets.
type shownListener struct {
	net.Listener
	accepted chan net.Conn
}

func (l shownListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.accepted <- conn
	}
	return conn, err
}

// keepAliveTimer is how long it is until the kernel probes the server's end of a connection, 0 if
// it does not, below 0 if it waits for something else.
func keepAliveTimer(t *testing.T, local string, remote net.Addr) time.Duration {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	require.NoError(t, err)
	hex := func(addr string) string { return fmt.Sprintf("0100007F:%04X", portOf(t, addr)) }
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[1] != hex(local) || fields[2] != hex(remote.String()) {
			continue
		}
		timer, ticks, _ := strings.Cut(fields[5], ":")
		switch timer {
		case "00":
			return 0
		case "02":
		default:
			return -time.Hour
		}
		n, err := strconv.ParseInt(ticks, 16, 64)
		require.NoError(t, err)
		return time.Duration(n) * 10 * time.Millisecond // USER_HZ
	}
	t.Fatalf("no connection %s %s in\n%s", local, remote, table)
	return 0
}
