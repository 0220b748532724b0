package meta

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/tlstest"
)

// scripted is a connection whose reads bring what a test says, one element each.
type scripted struct {
	net.Conn
	reads [][]byte
}

func (c *scripted) Read(b []byte) (int, error) {
	if len(c.reads) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.reads[0])
	if c.reads[0] = c.reads[0][n:]; len(c.reads[0]) == 0 {
		c.reads = c.reads[1:]
	}
	return n, nil
}

func record(kind byte, payload []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{kind, 3, 1}, uint16(len(payload))), payload...)
}

// However a ClientHello arrives, its bytes come through in records that crypto/tls holds in a small buffer, and what
// follows it as it is.
func TestHelloRecords(t *testing.T) {
	payload := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i * 7)
		}
		return b
	}
	after := record(recordHandshake, payload(600))
	for name, c := range map[string]struct {
		first []byte
		cut   bool
	}{
		"ClientHello":           {record(recordHandshake, payload(1540)), true},
		"as large as can be":    {record(recordHandshake, payload(1<<14)), true},
		"a little one":          {record(recordHandshake, payload(wholeRecord)), false},
		"too large":             {record(recordHandshake, payload(1<<14+1)), false},
		"empty":                 {record(recordHandshake, nil), false},
		"something else in TLS": {record(21, payload(1000)), false},
		"no TLS":                {[]byte("GET / HTTP/1.1\r\n\r\n"), false},
	} {
		for _, size := range []int{1, 5, 6, 7, 100, 571, 20_000} {
			conn := &scripted{reads: slices.Collect(slices.Chunk(slices.Concat(c.first, after), size))}
			s := &socket{Conn: conn, pass: &pass{gate: newGate(1), ctx: t.Context()}}
			var got []byte
			var reads [][]byte
			for b := make([]byte, 571); ; {
				n, err := s.Read(b)
				if n > 0 {
					got, reads = append(got, b[:n]...), append(reads, slices.Clone(b[:n]))
				}
				if err != nil {
					require.Equal(t, io.EOF, err)
					break
				}
			}
			s.pass.leave()
			// The first read has to bring a header and more, and no more than the record.
			if !c.cut || size <= recordHeader {
				assert.Equal(t, slices.Concat(c.first, after), got, "%s, %d", name, size)
				continue
			}
			var whole []byte
			for len(whole) < len(c.first)-recordHeader {
				r := reads[0]
				reads = reads[1:]
				require.Equal(t, []byte{recordHandshake, 3, 1}, r[:3], "%s, %d", name, size)
				require.Equal(t, len(r)-recordHeader, int(binary.BigEndian.Uint16(r[3:])), "%s, %d: one record a read", name, size)
				whole = append(whole, r[recordHeader:]...)
			}
			assert.Equal(t, c.first[recordHeader:], whole, "%s, %d", name, size)
			assert.Equal(t, after, slices.Concat(reads...), "%s, %d", name, size)
		}
	}
}

// crypto/tls of the Go version in use takes a ClientHello in pieces, whatever its size, and is smaller for it. If it is not,
// helloRecords has no use any more.
func TestTLSIsSmallerForSmallRecords(t *testing.T) {
	ca := tlstest.NewCA(t)
	config := ca.ServerConfig(t)
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const n = 100
	perConnection := func(cut bool) int64 {
		var keep []any
		before := heap()
		for i := range n {
			near, far := tcpPair(t)
			s := newSocket(near)
			s.pass = &pass{gate: newGate(1), ctx: t.Context()}
			s.pass.hello.begun = !cut
			// Other sizes of the hello too, for the more names of protocols.
			client := &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}
			for range i % 4 {
				client.NextProtos = append(client.NextProtos, string(make([]byte, 200)))
			}
			go tls.Client(far, client).Handshake()
			conn := tls.Server(s, config)
			require.NoError(t, conn.Handshake())
			s.pass.leave()
			s.pass = nil
			keep = append(keep, conn)
		}
		after := heap()
		runtime.KeepAlive(keep)
		return (int64(after) - int64(before)) / n
	}
	perConnection(true) // warms up
	whole, cut := perConnection(false), perConnection(true)
	assert.Greater(t, whole-cut, int64(1000), "bytes per connection: %d, with records cut %d", whole, cut)
}
