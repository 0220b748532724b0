package meta_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
)

// lineServer echoes lines on one address, can be stopped and started there again, and notes what it
// has read.
type lineServer struct {
	t     *testing.T
	m     mode
	addr  string
	deaf  atomic.Bool   // it reads nothing
	brief bool          // it answers with the number of a message alone
	hear  chan struct{} // until this is closed, and then it answers nothing; nil: never

	mu       sync.Mutex // guards all below
	listener net.Listener
	conns    map[net.Conn]net.Conn // and the stream of each
	seen     map[string]int
	serving  sync.WaitGroup
}

func newLineServer(t *testing.T, m mode) *lineServer {
	t.Helper()
	addr := fmt.Sprintf("127.0.0.1:%d", needs.Port(t)) // while it is stopped no other test may get its port
	s := &lineServer{t: t, m: m, addr: addr, conns: map[net.Conn]net.Conn{}, seen: map[string]int{}}
	s.start()
	t.Cleanup(func() {
		s.stop()
		s.serving.Wait()
	})
	return s
}

func (s *lineServer) start() {
	s.t.Helper()
	listener, err := net.Listen("tcp", s.addr)
	require.NoError(s.t, err)
	s.mu.Lock()
	s.listener = listener
	s.mu.Unlock()
	s.serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			stream := conn
			if s.m.tls() {
				stream = tls.Server(conn, s.m.manager.(manager).server)
			}
			s.mu.Lock()
			if s.listener == listener {
				s.conns[conn] = stream
				s.serving.Go(func() { s.serve(conn, stream) })
			} else {
				conn.Close()
			}
			s.mu.Unlock()
		}
	})
}

func (s *lineServer) serve(conn, stream net.Conn) {
	defer conn.Close()
	if s.deaf.Load() {
		if secure, ok := stream.(*tls.Conn); ok {
			secure.Handshake()
		}
		select {
		case <-s.t.Context().Done():
			return
		case <-s.hear:
		}
		for lines := bufio.NewReader(stream); ; {
			line, err := lines.ReadString('\n')
			if err != nil {
				return // what is left of a line does not count
			}
			s.mu.Lock()
			s.seen[line[:numberSize]]++
			s.mu.Unlock()
		}
	}
	lines := bufio.NewScanner(stream)
	for lines.Scan() {
		s.mu.Lock()
		_, open := s.conns[conn]
		if open {
			s.seen[lines.Text()[:min(len(lines.Text()), numberSize)]]++
		}
		s.mu.Unlock()
		if !open {
			<-s.t.Context().Done() // where it was not closed, it does not answer any more
			return
		}
		answer := lines.Text()
		if s.brief {
			answer = answer[:min(len(answer), numberSize)]
		}
		if _, err := fmt.Fprintln(stream, answer); err != nil {
			return
		}
	}
}

func (s *lineServer) stop() { s.stopBy(closed) }

// stopBy closes the listener, and ends every connection by a function.
func (s *lineServer) stopBy(end func(conn, stream net.Conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		s.listener.Close()
		s.listener = nil
	}
	for conn, stream := range s.conns {
		end(conn, stream)
	}
	clear(s.conns)
}

// Ways in which a server ends.
func closed(conn, _ net.Conn)    { conn.Close() } // a reset where something was not read, else a FIN
func hangs(net.Conn, net.Conn)   {}
func inOrder(_, stream net.Conn) { stream.Close() }
func reset(conn, _ net.Conn) {
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}
func midFrame(conn, stream net.Conn) {
	fmt.Fprint(stream, "00")
	conn.(*net.TCPConn).CloseWrite()
	conn.Close()
}
