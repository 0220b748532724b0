package meta

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"reflect"
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

// throughHello reads a stream that arrives in chunks of a size as crypto/tls would, and returns what each read gave.
func throughHello(t testing.TB, stream []byte, size int) (reads [][]byte) {
	s := &socket{Conn: &scripted{reads: slices.Collect(slices.Chunk(stream, size))}, pass: &pass{gate: newGate(1), ctx: t.Context()}}
	defer s.pass.leave()
	for b := make([]byte, 571); ; {
		n, err := s.Read(b)
		if n > 0 {
			reads = append(reads, slices.Clone(b[:n]))
		}
		if err != nil {
			require.Equal(t, io.EOF, err)
			return reads
		}
	}
}

// checkHello makes sure that the first record, whole, came through in records that crypto/tls holds in a small buffer, one a read, and
// what follows as it is.
func checkHello(t testing.TB, stream []byte, reads [][]byte) {
	length := int(binary.BigEndian.Uint16(stream[3:]))
	var payload []byte
	for len(payload) < length {
		r := reads[0]
		reads = reads[1:]
		require.Equal(t, stream[:3], r[:3])
		require.Equal(t, len(r)-recordHeader, int(binary.BigEndian.Uint16(r[3:])), "one record a read")
		payload = append(payload, r[recordHeader:]...)
	}
	assert.Equal(t, stream[recordHeader:recordHeader+length], payload)
	assert.Equal(t, stream[recordHeader+length:], append([]byte{}, slices.Concat(reads...)...))
}

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
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{1, 5, 6, 7, 100, 571, 20_000} {
				stream := slices.Concat(c.first, after)
				reads := throughHello(t, stream, size)
				// The first read has to bring a header and more, and no more than the record.
				if c.cut && size > recordHeader {
					checkHello(t, stream, reads)
					assert.Greater(t, len(reads[0]), recordHeader)
					assert.Less(t, len(reads[0]), len(c.first)/3)
				} else {
					assert.Equal(t, stream, slices.Concat(reads...), size)
				}
			}
		})
	}
}

// FuzzHelloRecords: whatever a peer begins with, crypto/tls is given its bytes, or the same handshake message in other records.
func FuzzHelloRecords(f *testing.F) {
	f.Add(record(recordHandshake, make([]byte, 1500)), uint16(571))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint16(3))
	f.Fuzz(func(t *testing.T, stream []byte, size uint16) {
		reads := throughHello(t, stream, 1+int(size))
		if got := slices.Concat(reads...); bytes.Equal(got, stream) {
			return
		}
		require.Equal(t, byte(recordHandshake), stream[0])
		if whole := recordHeader + int(binary.BigEndian.Uint16(stream[3:])); whole <= len(stream) {
			checkHello(t, stream, reads)
			return
		}
		// It was cut off. What came through is a beginning of its payload.
		var payload []byte
		for _, r := range reads {
			payload = append(payload, r[recordHeader:]...)
		}
		require.True(t, bytes.HasPrefix(stream[recordHeader:], payload))
	})
}

// crypto/tls of the Go version in use takes a ClientHello in pieces, whatever its size, and is smaller for it. If it is not,
// helloRecords has no use any more.
func TestTLSIsSmallerForSmallRecords(t *testing.T) {
	ca := tlstest.NewCA(t)
	config := ca.ServerConfig(t)
	const n = 20
	perConnection := func(cut bool) (held int) {
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
			for _, buffer := range []string{"rawInput", "hand"} { // the records, and the handshake messages put together from them
				held += reflect.ValueOf(conn).Elem().FieldByName(buffer).FieldByName("buf").Cap()
			}
		}
		return held / n
	}
	whole, cut := perConnection(false), perConnection(true)
	t.Logf("%d bytes in the buffers of a connection, with records cut %d", whole, cut)
	assert.Greater(t, whole-cut, 1000, "bytes per connection: %d, with records cut %d", whole, cut)
}
