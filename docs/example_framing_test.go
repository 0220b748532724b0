package docs_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"log"
	"net"
	"time"

	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
)

// Frames with a length of four bytes before them, at most 1 MiB each.
func Example_framing() {
	split, err := meta.LengthPrefixed{Width: 4, MaxPayload: 1 << 20}.Split()
	if err != nil {
		log.Fatal(err)
	}
	server := meta.TCPServerOptions{
		Split:    split,
		MaxFrame: 4 + 1<<20, // the header counts
	}
	frames := make(chan string, 2)
	s, stop := serve(server, func(_ *service, message any) {
		if m, ok := message.(meta.MessageTCP); ok {
			frames <- string(m.Data) // one frame, without its header, however it came
		}
	})
	defer stop()
	conn, err := net.Dial("tcp", s.listen)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	for _, frame := range []string{"one", "two"} {
		conn.Write(binary.BigEndian.AppendUint32(nil, uint32(len(frame))))
		conn.Write([]byte(frame))
		fmt.Println(<-frames)
	}
	// Output:
	// one
	// two
}

// An actor that works on ten lines at a time, and a peer that sends as fast as it can.
func Example_credit() {
	done := make(chan int)
	lines := 0
	server := meta.TCPServerOptions{Split: bufio.ScanLines, Active: 10}
	s, stop := serve(server, func(s *service, message any) {
		switch m := message.(type) {
		case meta.MessageTCP:
			lines++
		case meta.MessageTCPPassive: // all ten have been handled; the connection does not read until it may
			_ = s.SendAlias(m.ID, meta.MessageTCPActive{N: 10})
		case meta.MessageTCPDisconnect:
			done <- lines
		}
	})
	defer stop()
	conn, err := net.Dial("tcp", s.listen)
	if err != nil {
		log.Fatal(err)
	}
	for range 1000 {
		fmt.Fprintln(conn, "as fast as it can")
	}
	conn.Close()
	fmt.Println(<-done)
	// Output: 1000
}

// A message as a Call is answered when its bytes are with the kernel.
func Example_call() {
	answer := make(chan any)
	s, stop := serve(meta.TCPServerOptions{}, func(s *service, message any) {
		if m, ok := message.(meta.MessageTCPConnect); ok {
			written, err := s.CallAlias(m.ID, meta.MessageTCP{Data: []byte("hello")}, gen.DefaultRequestTimeout)
			if err != nil {
				written = err // no answer within five seconds
			}
			answer <- written // the number of bytes, or why they were not written
		}
	})
	defer stop()
	conn, err := net.Dial("tcp", s.listen)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Println(<-answer)
	// Output: 5
}

func Example_drain() {
	ca := newCA()
	certs := manager(ca, certmanager.Options{})
	defer certs.Close()
	done := make(chan error)
	s, stop := serve(meta.TCPServerOptions{CertManager: certs}, func(s *service, message any) {
		switch m := message.(type) {
		case meta.MessageTCP: // the last word of this protocol: the operator wants an end
			_ = s.SendAlias(s.id, meta.MessageTCPDrain{Timeout: 30 * time.Second})
		case meta.MessageTCPDraining: // say goodbye in the words of the protocol, then close
			_ = s.SendAlias(m.ID, meta.MessageTCP{Data: []byte("goodbye")})
			_ = s.SendAlias(m.ID, meta.MessageTCPClose{})
		case meta.MessageTCPDisconnect:
			done <- m.Reason // ErrDrained for those that did not close in time
		}
	})
	defer stop()
	conn, err := tls.Dial("tcp", s.listen, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	say(conn, "the end")
	fmt.Println(<-done)
	_, err = net.Dial("tcp", s.listen)
	fmt.Println("accepts nobody:", err != nil)
	// Output:
	// goodbye
	// terminated
	// accepts nobody: true
}
