package meta

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// nextLocked, which the read loop calls before each wait, allocates nothing.
func TestNextAllocations(t *testing.T) {
	near, _ := tcpPair(t)
	c := newConnection(&TCPConnectionOptions{
		IdleTimeout: time.Minute, HalfClose: time.Minute, KeepAliveMessage: []byte("x"), KeepAliveMessagePeriod: time.Minute,
	}, nil, newSocket(near), nil)
	c.inputEnded, c.ownerAt, c.expires = time.Now(), time.Now(), time.Now()
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.nextLocked()
	}))
}
