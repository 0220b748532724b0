package meta

import (
	"testing"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// asking is a connection's meta process that needs the lock of the server, as the accept loop does.
type asking struct {
	teller
	server *tcpServer
}

func (p *asking) ID() gen.Alias {
	p.server.count(func(*ServerStats) {})
	return p.teller.ID()
}

// What is asked of each connection, which takes long where there are many, does not hold up the
// accept loop.
func TestConnectionsHoldNoLock(t *testing.T) {
	near, _ := tcpPair(t)
	s := &tcpServer{open: map[*tcpConnection]struct{}{}}
	c := newConnection(&TCPConnectionOptions{}, s, newSocket(near), "")
	process := &asking{server: s}
	require.NoError(t, c.Init(process))
	c.connectSent = true
	s.open[c] = struct{}{}
	assert.Len(t, Connections(s), 1)
	assert.NotEmpty(t, s.HandleInspect(gen.PID{}, process.ID().String())["remote"])
}
