// Goroutines in this file: Slow starts one that reads what the server answers.
// It ends when the server ends the connection or at the timeout, and Slow waits
// for it.

package tlstest

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// HostileClient is a client that misbehaves.
type HostileClient struct {
	Name string // for subtests

	// Visit misbehaves on a connection that was just dialed, until the server
	// ends it or the timeout has passed, and closes it. The config is
	// that of a client which the server would accept, nil for a server that
	// does not speak TLS.
	//
	// It returns what the server sent, decrypted if there was a handshake, and how the connection
	// ended: nil if the client itself ended it, [io.EOF] if the server closed it in order,
	// [io.ErrUnexpectedEOF] if it did so without close_notify after a handshake,
	// [os.ErrDeadlineExceeded] if the server kept it open until the timeout, else the error, such
	// as [syscall.ECONNRESET].
	Visit func(conn net.Conn, config *tls.Config, timeout time.Duration) (received []byte, err error)
}

// HostileClients are all hostile clients of this package.
var HostileClients = []HostileClient{
	{"silent", Silent},
	{"one byte a second", Slow(time.Second)},
	{"half a ClientHello", HalfHello},
	{"plain HTTP", PlainHTTP},
	{"garbage", Garbage},
	{"reset before the handshake", ResetBeforeHandshake},
	{"reset during the handshake", ResetDuringHandshake},
	{"reset after the handshake", ResetAfterHandshake},
	{"FIN without close_notify", FINWithoutCloseNotify},
	{"never reads", NeverReads},
}

// Silent sends nothing.
func Silent(conn net.Conn, _ *tls.Config, timeout time.Duration) ([]byte, error) {
	return say(conn, nil, timeout)
}

// PlainHTTP sends an HTTP request without TLS.
func PlainHTTP(conn net.Conn, _ *tls.Config, timeout time.Duration) ([]byte, error) {
	return say(conn, []byte("GET / HTTP/1.1\r\nHost: example.test\r\n\r\n"), timeout)
}

// Garbage sends 4096 random bytes, of which the first is not TLS.
func Garbage(conn net.Conn, _ *tls.Config, timeout time.Duration) ([]byte, error) {
	noise := make([]byte, 4096)
	rand.Read(noise[1:])
	return say(conn, noise, timeout)
}

// HalfHello sends the first half of a ClientHello, and then nothing.
func HalfHello(conn net.Conn, config *tls.Config, timeout time.Duration) ([]byte, error) {
	hello, err := clientHello(config)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return say(conn, hello[:len(hello)/2], timeout)
}

// say sends data and reads until the end.
func say(conn net.Conn, data []byte, timeout time.Duration) ([]byte, error) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(timeout))
	if _, err := conn.Write(data); err != nil {
		return nil, err
	}
	return readAll(conn)
}

// readAll is io.ReadAll that also tells of an end in order.
func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(r)
	if err == nil {
		err = io.EOF
	}
	return data, err
}

// Slow returns a peer that sends a ClientHello, a byte at each interval, and
// nothing after it.
func Slow(interval time.Duration) func(net.Conn, *tls.Config, time.Duration) ([]byte, error) {
	return func(conn net.Conn, config *tls.Config, timeout time.Duration) (received []byte, err error) {
		defer conn.Close()
		hello, err := clientHello(config)
		if err != nil {
			return nil, err
		}
		conn.SetDeadline(time.Now().Add(timeout))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			received, err = readAll(conn)
		}()
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for i := 0; ; i++ {
			select {
			case <-ended:
				return received, err
			case <-ticker.C:
				if i < len(hello) {
					conn.Write(hello[i : i+1]) // the reader hears of its failure too
				}
			}
		}
	}
}

// clientHello returns the record that a client with this config sends first.
func clientHello(config *tls.Config) ([]byte, error) {
	if config == nil {
		config = &tls.Config{InsecureSkipVerify: true}
	}
	var first firstWrite
	err := tls.Client(&first, config).Handshake()
	if first.data == nil {
		return nil, fmt.Errorf("tlstest: ClientHello: %w", err)
	}
	return first.data, nil
}

// firstWrite is a connection that keeps what is written first and then ends.
type firstWrite struct {
	net.Conn
	data []byte
}

func (c *firstWrite) Read([]byte) (int, error) { return 0, io.EOF }

func (c *firstWrite) Write(p []byte) (int, error) {
	if c.data == nil {
		c.data = bytes.Clone(p)
	}
	return len(p), nil
}

// ResetBeforeHandshake sends a TCP RST and nothing else.
func ResetBeforeHandshake(conn net.Conn, _ *tls.Config, _ time.Duration) ([]byte, error) {
	return nil, reset(conn)
}

// ResetDuringHandshake sends a ClientHello and, once the server has begun to
// answer, a TCP RST.
func ResetDuringHandshake(conn net.Conn, config *tls.Config, timeout time.Duration) ([]byte, error) {
	hello, err := clientHello(config)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	conn.SetDeadline(time.Now().Add(timeout))
	if _, err := conn.Write(hello); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	answer := make([]byte, 1)
	if _, err := conn.Read(answer); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return answer, reset(conn)
}

// ResetAfterHandshake completes a handshake, then sends a TCP RST. In TLS 1.3
// the client completes first, and the server may see a failed handshake.
func ResetAfterHandshake(conn net.Conn, config *tls.Config, timeout time.Duration) ([]byte, error) {
	if _, err := open(conn, config, timeout); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return nil, reset(conn)
}

// open does the handshake, if there is to be one.
func open(conn net.Conn, config *tls.Config, timeout time.Duration) (net.Conn, error) {
	conn.SetDeadline(time.Now().Add(timeout))
	if config == nil {
		return conn, nil
	}
	client := tls.Client(conn, config)
	return client, client.Handshake()
}

func reset(conn net.Conn) error {
	tcp, ok := conn.(interface{ SetLinger(seconds int) error })
	if !ok {
		return errors.Join(fmt.Errorf("tlstest: a reset needs a *net.TCPConn, not a %T", conn), conn.Close())
	}
	return errors.Join(tcp.SetLinger(0), conn.Close())
}

// FINWithoutCloseNotify completes a handshake and ends its side of the TCP
// connection without ending TLS, as a truncation attack does.
func FINWithoutCloseNotify(conn net.Conn, config *tls.Config, timeout time.Duration) ([]byte, error) {
	defer conn.Close()
	tcp, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return nil, fmt.Errorf("tlstest: a FIN needs a *net.TCPConn, not a %T", conn)
	}
	below := &eofRecorder{Conn: conn}
	client, err := open(below, config, timeout)
	if err != nil {
		return nil, err
	}
	if err := tcp.CloseWrite(); err != nil {
		return nil, err
	}
	received, err := readAll(client)
	if config != nil && err == io.EOF && below.eof {
		err = io.ErrUnexpectedEOF
	}
	return received, err
}

// eofRecorder tells the end of TCP from the end of TLS, since crypto/tls gives
// io.EOF for either, unless TCP ends inside a record.
type eofRecorder struct {
	net.Conn
	eof bool
}

func (c *eofRecorder) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.eof = c.eof || err == io.EOF
	return n, err
}

// NeverReads completes a handshake, then keeps sending zeros and reads
// nothing.
func NeverReads(conn net.Conn, config *tls.Config, timeout time.Duration) ([]byte, error) {
	defer conn.Close()
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetReadBuffer(4 << 10) // else the kernel reads megabytes on the peer's behalf
	}
	client, err := open(conn, config, timeout)
	if err != nil {
		return nil, err
	}
	block := make([]byte, 16<<10)
	for {
		if _, err := client.Write(block); err != nil {
			return nil, err
		}
	}
}
