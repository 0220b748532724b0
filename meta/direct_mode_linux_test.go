//go:build !race

package meta

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Who calls File().Fd() makes the connection's own descriptor a blocking one. The read loop and eager writes do not block for it.
func TestNothingBlocksInBlockingMode(t *testing.T) {
	conn, peer := tcpPair(t)
	file, err := conn.(*net.TCPConn).File()
	require.NoError(t, err)
	file.Fd()
	file.Close()

	defer time.AfterFunc(10*time.Second, func() { peer.Close() }).Stop() // ends what blocks
	sock := newSocket(conn)
	var buf [64]byte
	require.NoError(t, sock.wait(func() bool {
		_, err = sock.Read(buf[:])
		return true
	}))
	assert.Equal(t, errWouldBlock, err)

	sock.setEager(true)
	_, err = sock.Write(make([]byte, 64<<20)) // more than the kernel takes
	require.NoError(t, err)
	assert.True(t, sock.setEager(false), "bytes are left over")
}
