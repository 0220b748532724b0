package meta_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// records gives the types of the TLS records that come until the end of the connection.
func records(t *testing.T, conn net.Conn) (types []byte) {
	t.Helper()
	for {
		var header [5]byte
		if _, err := io.ReadFull(conn, header[:]); err != nil {
			assert.ErrorIs(t, err, io.EOF, "the end must be in order")
			return types
		}
		types = append(types, header[0])
		_, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint16(header[3:])))
		require.NoError(t, err)
	}
}

// bitFlipper spoils the last byte of what is written through it.
type bitFlipper struct {
	net.Conn
	on bool
}

func (f *bitFlipper) Write(b []byte) (int, error) {
	if f.on {
		b = bytes.Clone(b)
		b[len(b)-1] ^= 1
	}
	return f.Conn.Write(b)
}

// After a fatal alert of ours comes nothing more, no close_notify either (RFC 8446 section 6.2, RFC
// 5246 section 7.2.2).
func TestAlertIsLastRecord(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(echo)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager})
		line := &bitFlipper{Conn: dialTCP(t, addr)}
		peer := tls.Client(line, m.client)
		talk(t, peer) // and reads the session tickets of TLS 1.3
		expect[meta.MessageTCPConnect](a)
		line.on = true
		io.WriteString(peer, "spoiled")
		want := []byte{21} // alert
		if peer.ConnectionState().Version == tls.VersionTLS13 {
			want = []byte{23} // looks like application data
		}
		assert.Equal(t, want, records(t, line.Conn))
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrProtocol)
	})
}

// sealer writes TLS 1.3 records of a client that would never be written by crypto/tls (RFC 8446
// sections 5.2 and 7).
type sealer struct {
	t      *testing.T
	conn   net.Conn
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

// newSealer takes over the sending side of a client that has written nothing since its handshake.
func newSealer(t *testing.T, conn net.Conn, keyLog string) *sealer {
	s := &sealer{t: t, conn: conn}
	for line := range strings.Lines(keyLog) {
		if fields := strings.Fields(line); fields[0] == "CLIENT_TRAFFIC_SECRET_0" {
			var err error
			s.secret, err = hex.DecodeString(fields[2])
			require.NoError(t, err)
		}
	}
	s.rekey()
	return s
}

func (s *sealer) expand(label string, size int) []byte {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(size))
	info = append(append(info, byte(len(label))), label...)
	out, err := hkdf.Expand(sha256.New, s.secret, string(append(info, 0)), size)
	require.NoError(s.t, err)
	return out
}

func (s *sealer) rekey() {
	block, err := aes.NewCipher(s.expand("key", 16))
	require.NoError(s.t, err)
	s.aead, err = cipher.NewGCM(block)
	require.NoError(s.t, err)
	s.iv, s.seq = s.expand("iv", 12), 0
}

// seal gives one record of a content type.
func (s *sealer) seal(contentType byte, content string) []byte {
	nonce := bytes.Clone(s.iv)
	for i, b := range binary.BigEndian.AppendUint64(nil, s.seq) {
		nonce[4+i] ^= b
	}
	s.seq++
	header := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(content)+1+s.aead.Overhead()))
	return s.aead.Seal(header, nonce, append([]byte(content), contentType), header)
}

// update gives a record that says that the next has other keys, and asks for the same in return or
// does not.
func (s *sealer) update(request string) []byte {
	record := s.seal(22, "\x18\x00\x00\x01"+request)
	s.secret = s.expand("traffic upd", 32)
	s.rekey()
	return record
}

// floods are records after the handshake that carry nothing, one after the other without an end.
var floods = map[string]func(s *sealer) []byte{
	"empty records":       func(s *sealer) []byte { return s.seal(23, "") },
	"key updates":         func(s *sealer) []byte { return s.update("\x00") },
	"key update requests": func(s *sealer) []byte { return s.update("\x01") },
	"alerts":              func(s *sealer) []byte { return s.seal(21, "\x01\x5a") }, // user_canceled
	"empty handshakes":    func(s *sealer) []byte { return s.seal(22, "") },
	"half a handshake":    func(s *sealer) []byte { return s.seal(22, "\x18\x00\xff\xff"+strings.Repeat("x", 1000)) },
	"unknown handshake":   func(s *sealer) []byte { return s.seal(22, "\x63\x00\x00\x00") },
	"hello again":         func(s *sealer) []byte { return s.seal(22, "\x01\x00\x00\x00") }, // what a renegotiation begins with
}

// helloSealer makes a handshake of TLS 1.3, sends a message in records of its own, and reads the
// answer.
func helloSealer(t *testing.T, conn net.Conn, config *tls.Config) *sealer {
	t.Helper()
	var keyLog bytes.Buffer
	config = config.Clone()
	config.KeyLogWriter = &keyLog
	secure := tls.Client(conn, config)
	require.NoError(t, secure.Handshake())
	require.Equal(t, tls.TLS_AES_128_GCM_SHA256, secure.ConnectionState().CipherSuite)
	s := newSealer(t, conn, keyLog.String())
	conn.Write(s.seal(23, "hello")) // the keys are right
	got := make([]byte, 5)
	_, err := io.ReadFull(secure, got)
	require.NoError(t, err)
	assert.Equal(t, "hello", string(got))
	return s
}

// Records that carry nothing end the connection after a few, whatever kind they are.
func TestFloods(t *testing.T) {
	m := modes()[2]
	for name, flood := range floods {
		t.Run(name, func(t *testing.T) {
			a := newHost(t).spawn(echo)
			_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager})
			conn := dialTCP(t, addr)
			s := helloSealer(t, conn, m.client)
			expect[meta.MessageTCPConnect](a)
			var err error
			sent := 0
			for ; err == nil; sent++ {
				_, err = conn.Write(flood(s))
			}
			assert.NotErrorIs(t, err, os.ErrDeadlineExceeded, "it bears all of it")
			disconnect := expect[meta.MessageTCPDisconnect](a)
			assert.ErrorIs(t, disconnect.Reason, meta.ErrProtocol)
			t.Logf("%s: %d records written until %v", name, sent, disconnect.Reason)
		})
	}
}

// handshakeFloods are records instead of a handshake.
var handshakeFloods = map[string]string{
	"empty handshakes":   "\x16\x03\x03\x00\x00",
	"warnings":           "\x15\x03\x03\x00\x02\x01\x5a",
	"change cipher spec": "\x14\x03\x03\x00\x01\x01",
	"application data":   "\x17\x03\x03\x00\x01x",
	"a huge ClientHello": "\x16\x03\x03\x00\x04\x01\xff\xff\xff",
	"no end":             "\x16\x03\x03\x40\x00" + strings.Repeat("\x01\x00\xff\xf0", 4096),
}

// The same before the handshake is complete: what is no progress ends it.
func TestHandshakeFloods(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		for name, record := range handshakeFloods {
			t.Run(name, func(t *testing.T) {
				a := newHost(t).spawn(nil)
				id, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, HandshakeTimeout: time.Minute})
				conn := dialTCP(t, addr)
				sent := 0
				for ; sent < 10_000; sent++ {
					if _, err := io.WriteString(conn, record); err != nil {
						break
					}
				}
				eventually(t, func() bool { return a.inspect(id)["handshake failures"] == "1" }, "it is refused before its deadline")
				a.quiet()
			})
		}
	})
}

// A ClientHello in records of one byte is slow, and still one.
func TestFragmentedHandshake(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(echo)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager})
		conn := &fragmenter{Conn: dialTCP(t, addr)}
		talk(t, m.secure(t, conn))
	})
}

// fragmenter cuts the first record that is written through it into records of one byte each.
type fragmenter struct {
	net.Conn
	done bool
}

func (f *fragmenter) Write(b []byte) (int, error) {
	if f.done {
		return f.Conn.Write(b)
	}
	f.done = true
	for _, c := range b[5:] {
		if _, err := f.Conn.Write([]byte{b[0], b[1], b[2], 0, 1, c}); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// What speaks no TLS on a TLS port is named, once for each source and minute.
func TestPlaintextOnTLSPort(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		for name, text := range map[string]string{"HTTP": "GET / HTTP/1.1\r\n\r\n", "SSH": "SSH-2.0-client\r\n"} {
			t.Run(name, func(t *testing.T) {
				a := newHost(t).spawn(nil)
				id, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager})
				for range 20 {
					conn := dialTCP(t, addr)
					io.WriteString(conn, text)
					io.ReadAll(conn)
				}
				eventually(t, func() bool { return a.inspect(id)["handshake failures"] == "20" }, "all are counted")
				eventually(t, a.h.log.contains(fmt.Sprintf("does not speak TLS, it began with %q", text[:5])), "it is said why")
				assert.Equal(t, 1, strings.Count(a.h.log.String(), "refused:"))
				a.quiet()
			})
		}
	})
}

// A name that no host has is refused, whoever the manager is.
func TestImpossibleServerName(t *testing.T) {
	pki := newPKI(t, false)
	for name, bad := range map[string]string{"NUL": "a\x00.test", "control": "a\x1b[2Jb.test", "long": strings.Repeat("a.", 127) + "test"} {
		t.Run(name, func(t *testing.T) {
			a := newHost(t).spawn(nil)
			id, addr := a.listen(meta.TCPServerOptions{CertManager: pki.manager})
			err := tls.Client(dialTCP(t, addr), &tls.Config{ServerName: bad, InsecureSkipVerify: true}).Handshake()
			var alert tls.AlertError
			assert.True(t, errors.As(err, &alert) || strings.Contains(err.Error(), "remote error"), "%v", err)
			eventually(t, func() bool { return a.inspect(id)["handshake failures"] == "1" }, "it is counted")
			eventually(t, a.h.log.contains("server name (SNI) refused"), "it is said why")
			assert.NotContains(t, a.h.log.String(), "\x1b")
			a.quiet()
		})
	}
}
