package meta_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ergotls/ergotls/meta"
)

// The end of a stream that comes in one segment with its last message is found, though the poller
// reports both at once.
func TestEndBehindTheLastMessage(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(echo)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager})
		for range 5 {
			peer := m.dial(t, addr)
			for range 10 {
				talk(t, peer)
			}
			raw, err := rawTCP(peer).SyscallConn()
			require.NoError(t, err)
			require.NoError(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, 1) }))
			require.NoError(t, err)
			_, err = peer.Write([]byte("the last"))
			require.NoError(t, err)
			require.NoError(t, rawTCP(peer).CloseWrite())
			began := time.Now()
			for ended := false; !ended; {
				d, ok := expect[any](a).(meta.MessageTCPDisconnect)
				if ended = ok; ok {
					assert.ErrorIs(t, d.Reason, meta.ErrTruncated)
				}
			}
			assert.Less(t, time.Since(began), testTimeout/2)
		}
	})
}
