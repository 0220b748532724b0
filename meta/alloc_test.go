//go:build !race

package meta

import (
	"bufio"
	"crypto/tls"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/tlstest"
)

// A message that is read takes its own bytes, and nothing else.
func TestReadPathAllocations(t *testing.T) {
	for name, test := range map[string]struct {
		options TCPConnectionOptions
		read    int     // bytes at a time
		allowed float64 // allocations for each read
	}{
		"small":  {TCPConnectionOptions{BufferSize: 65535}, 64, 1.05},
		"large":  {TCPConnectionOptions{BufferSize: 65535}, 16 << 10, 1.05},
		"frames": {TCPConnectionOptions{Split: bufio.ScanLines, MaxFrame: 1000}, 4096, 64.2},
	} {
		t.Run(name, func(t *testing.T) {
			b := inbox{opt: &test.options}
			data := make([]byte, test.read)
			for i := 63; i < len(data); i += 64 {
				data[i] = '\n'
			}
			got := 0
			allocs := testing.AllocsPerRun(2000, func() {
				b.end += copy(b.space(), data)
				for {
					message, _, _ := b.next()
					if message == nil {
						break
					}
					got++
				}
				b.park()
			})
			assert.LessOrEqual(t, allocs, test.allowed)
			assert.Greater(t, got, 2000)
		})
	}
}

// Writing allocates nothing, over TLS neither.
func TestWritePathAllocations(t *testing.T) {
	ca := tlstest.NewCA(t)
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			near, far := tcpPair(t)
			sock := newSocket(near)
			var out stream = sock
			var peer io.Reader = far
			if secure {
				client := tls.Client(far, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
				server := tls.Server(sock, ca.ServerConfig(t))
				shaken := make(chan error, 1)
				go func() { shaken <- client.Handshake() }()
				require.NoError(t, server.Handshake())
				require.NoError(t, <-shaken)
				out, peer = server, far // nobody decrypts: that would allocate too
			}
			c := newConnection(&TCPConnectionOptions{WriteBuffer: 64 << 10, WriteTimeout: time.Minute}, nil, sock, nil)
			require.NoError(t, c.Init(&deaf{}))
			w := &c.writer
			w.setOut(out)
			data, got := make([]byte, 64), make([]byte, 16<<10)
			allocs := testing.AllocsPerRun(2000, func() {
				for range 16 {
					w.write(MessageTCP{Data: data}, later)
				}
				w.flush()
				io.ReadAtLeast(peer, got, 16*64)
			})
			assert.Less(t, allocs, 0.1)
			assert.NoError(t, w.sync())
			assert.EqualValues(t, 2001*16*64, w.stats().sent)
		})
	}
}

// deaf is a meta process that forgets what it is to send. The test flushes.
type deaf struct{ teller }

func (*deaf) Send(any, any) error { return nil }
