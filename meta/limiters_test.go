package meta

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestClassifyAccept(t *testing.T) {
	wrapped := func(errno syscall.Errno) error {
		return &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", errno)}
	}
	for want, errs := range map[acceptClass][]error{
		acceptClosed:    {net.ErrClosed, fmt.Errorf("accept: %w", net.ErrClosed), &net.OpError{Op: "accept", Err: net.ErrClosed}},
		acceptExhausted: {wrapped(syscall.EMFILE), wrapped(syscall.ENFILE), wrapped(syscall.ENOBUFS), wrapped(syscall.ENOMEM)},
		acceptPeer:      {wrapped(syscall.ECONNABORTED), wrapped(syscall.ECONNRESET)},
		acceptUnknown:   {wrapped(syscall.EPERM), wrapped(syscall.EPROTO), errors.New("something new"), context.Canceled},
	} {
		for _, err := range errs {
			assert.Equal(t, want, classifyAccept(err), "%v", err)
		}
	}
}

func TestNextBackoff(t *testing.T) {
	var waits []time.Duration
	for wait := time.Duration(0); len(waits) < 10; {
		wait = nextBackoff(wait)
		waits = append(waits, wait/time.Millisecond)
	}
	assert.Equal(t, []time.Duration{5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000}, waits)
}

func TestLimitAddr(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7:1":           "192.0.2.7",
		"[::ffff:192.0.2.7]:1":  "192.0.2.7",
		"[2001:db8:1:2:3::4]:1": "2001:db8:1:2::",
		"[fe80::1%eth0]:1":      "fe80::",
	} {
		got := limitAddr(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		assert.Equal(t, netip.MustParseAddr(want), got, addr)
	}
	assert.False(t, limitAddr(&net.UnixAddr{Name: "/run/x"}).IsValid())
}

func TestAddressTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		b, max := addressTable{used: map[netip.Addr]addressUse{}}, MessageTCPLimits{MaxConnectionsPerAddress: 2, MaxHandshakeFailures: 3}
		for range 2 {
			assert.Empty(t, b.admit(one, max))
		}
		assert.Equal(t, "MaxConnectionsPerAddress", b.admit(one, max))
		assert.Empty(t, b.admit(two, max), "the limit is for each address")
		b.release(one)
		assert.Empty(t, b.admit(one, max))
		b.release(one)
		b.release(one)
		b.release(two)
		assert.Empty(t, b.used, "who has left takes no memory")

		for range 3 {
			assert.Empty(t, b.admit(one, max))
			b.failed(one)
			b.release(one)
		}
		assert.Equal(t, "MaxHandshakeFailures", b.admit(one, max))
		assert.Empty(t, b.admit(two, max))
		time.Sleep(time.Minute)
		assert.Empty(t, b.admit(one, max))
		for range 10 {
			assert.Empty(t, b.admit(netip.Addr{}, max), "what has no IP address has no limit")
		}
	})
}

// Places are given in the order of arrival; who gives up leaves none behind. Who has not read its
// ClientHello, and who answers a challenge, needs none.
func TestHandshakeLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &handshakeLimiter{max: 1}
		hurry, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first, second, third := &tlsHandshake{limiter: l, ctx: t.Context()}, &tlsHandshake{limiter: l, ctx: hurry}, &tlsHandshake{limiter: l, ctx: t.Context()}
		require.NoError(t, first.enter())
		assert.Zero(t, l.used)
		first.hello, second.hello, third.hello = true, true, true
		require.NoError(t, first.enter())
		require.NoError(t, first.enter())
		challenge := &tlsHandshake{limiter: l, ctx: t.Context(), hello: true, exempt: true}
		require.NoError(t, challenge.enter())
		challenge.leave()
		assert.ErrorIs(t, second.enter(), context.DeadlineExceeded)
		second.leave() // has none
		entered := make(chan error, 1)
		go func() { entered <- third.enter() }()
		synctest.Wait()
		assert.Empty(t, entered)
		first.leave()
		first.leave()
		require.NoError(t, <-entered)
		assert.Equal(t, 1, l.used)
		third.leave()
		assert.Zero(t, l.used)
		assert.Zero(t, l.waiting.Len())
	})
}

// One line for each source, reason and minute, and not many in all.
func TestLogLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := addressTable{used: map[netip.Addr]addressUse{}}
		source := netip.MustParseAddr("192.0.2.1")
		for range 2 {
			for _, why := range []int{0, 1} {
				assert.True(t, c.mayLog(source, why))
				assert.False(t, c.mayLog(source, why))
			}
			lines := 2
			for range 1000 {
				source = source.Next()
				if c.mayLog(source, 0) {
					lines++
				}
			}
			assert.Equal(t, maxLines, lines)
			time.Sleep(time.Minute)
		}
	})
}
