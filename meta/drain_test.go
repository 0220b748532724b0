package meta

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"ergo.services/ergo/gen"
)

// teller is a meta process that keeps what it is to send.
type teller struct {
	gen.MetaProcess
	sent []any
	told chan struct{} // nil, or one for each of sent
}

func (p *teller) ID() gen.Alias   { return gen.Alias{ID: [3]uint64{1}} }
func (p *teller) Parent() gen.PID { return gen.PID{ID: 1} }
func (p *teller) Send(_ any, message any) error {
	p.sent = append(p.sent, message)
	if p.told != nil {
		p.told <- struct{}{}
	}
	return nil
}

// A drain that comes to a connection which has just ended says nothing any more: Disconnect is the last message.
func TestDrainingNeverFollowsDisconnect(t *testing.T) {
	for _, ended := range []bool{false, true} {
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		var process teller
		c := newConnection(&TCPConnectionOptions{}, nil, newSocket(near), "")
		assert.NoError(t, c.Init(&process))
		deadline := time.Now()
		c.drainAt.Store(&deadline)
		c.draining()
		assert.Empty(t, process.sent, "before Connect")
		c.connected.Store(true)
		if ended {
			c.disconnected(&DisconnectError{Reason: ErrClosedByPeer})
		}
		c.draining()
		c.draining()
		assert.Len(t, process.sent, 1)
		assert.IsType(t, map[bool]any{false: MessageTCPDraining{}, true: MessageTCPDisconnect{}}[ended], process.sent[0])
	}
}
