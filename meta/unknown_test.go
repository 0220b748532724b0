package meta_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/meta"
)

// A message of a wrong type is answered with what to send, in the log.
func TestUnknownMessages(t *testing.T) {
	h := newHost(t)
	a := h.spawn(nil)
	server, addr := a.listen(meta.TCPServerOptions{})
	dialTCP(t, addr)
	connection := expect[meta.MessageTCPConnect](a).ID
	for _, c := range []struct {
		to      gen.Alias
		message any
		says    string
	}{
		{connection, "hello", "ignored: string; send a connection's bytes as MessageTCP{Data: …}"},
		{connection, []byte("hello"), "ignored: []uint8; send a connection's bytes as MessageTCP{Data: …}"},
		{connection, &meta.MessageTCP{}, "ignored: *meta.MessageTCP; send the meta.MessageTCP itself, not a pointer to it"},
		{connection, 1, "ignored: int; a connection takes MessageTCP, "},
		{connection, nil, "ignored: <nil>; a connection takes MessageTCP, "},
		{server, meta.MessageTCP{}, "ignored: meta.MessageTCP; a server takes MessageTCPDrain, MessageTCPSuspend, MessageTCPResume and MessageTCPLimits; what is for a connection goes to the ID of its MessageTCPConnect"},
		{server, &meta.MessageTCPDrain{}, "ignored: *meta.MessageTCPDrain; send the meta.MessageTCPDrain itself"},
	} {
		a.send(c.to, c.message)
		eventually(t, func() bool { return strings.Contains(h.log.String(), c.says) }, fmt.Sprintf("%T: %s", c.message, c.says))
	}
}

// A worker that is not there is told when the server starts, where the server can know it.
func TestUnknownWorker(t *testing.T) {
	h := newHost(t)
	a := h.spawn(nil)
	a.listen(meta.TCPServerOptions{Node: h, ProcessPool: []gen.Atom{"nobody"}})
	eventually(t, func() bool {
		return strings.Contains(h.log.String(), "ProcessPool: no process has the name 'nobody'; its connections will end until one has")
	}, "the server says so")
	assert.NotContains(t, h.log.String(), "refused")
}
