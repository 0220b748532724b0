package meta_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
)

// names is the name server of the tests of this folder: it knows what they have set.
var names = newNameServer()

type nameServer struct {
	mu      sync.Mutex // guards all below
	changed *sync.Cond
	addrs   map[string]string
}

func newNameServer() *nameServer {
	n := &nameServer{addrs: map[string]string{}}
	n.changed = sync.NewCond(&n.mu)
	return n
}

// set gives a name an IPv4 address, none if it is empty. While it is "hangs", queries get no
// answer.
func (n *nameServer) set(name, addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs[name] = addr
	n.changed.Broadcast()
}

// dial is for net.Resolver. What is no net.PacketConn carries queries as over TCP (RFC 1035
// section 4.2.2).
func (n *nameServer) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		var size [2]byte
		for {
			if _, err := io.ReadFull(server, size[:]); err != nil {
				return
			}
			query := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(server, query); err != nil {
				return
			}
			answer := n.answer(query)
			server.Write(binary.BigEndian.AppendUint16(nil, uint16(len(answer))))
			server.Write(answer)
		}
	}()
	return client, nil
}

// answer answers a query (RFC 1035 section 4.1).
func (n *nameServer) answer(query []byte) []byte {
	const header = 12
	question := query[header : header+bytes.IndexByte(query[header:], 0)+5] // the name, type and class
	var name strings.Builder
	for rest := question; rest[0] > 0; rest = rest[1+rest[0]:] {
		name.Write(rest[1 : 1+rest[0]])
		name.WriteByte('.')
	}
	n.mu.Lock()
	addr := n.addrs[strings.ToLower(name.String())]
	for addr == "hangs" {
		n.changed.Wait()
		addr = n.addrs[strings.ToLower(name.String())]
	}
	n.mu.Unlock()
	answer := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question...)
	if addr == "" {
		answer[3] |= 3 // there is no such name
	} else if question[len(question)-3] == 1 { // A
		answer[7] = 1
		answer = append(answer, 0xc0, header, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		answer = append(answer, netip.MustParseAddr(addr).AsSlice()...)
	}
	return answer
}
