package acme

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

// nameServer is a name server of example.test, which has its TXT records after a while.
type nameServer struct {
	mu  sync.Mutex
	txt map[string]string
}

func (s *nameServer) set(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.txt[name] = value
}

// start serves on loopback until the end of the test.
func (s *nameServer) start(t *testing.T) (addr string) {
	t.Helper()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	var done sync.WaitGroup
	done.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := socket.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply := s.answer(buf[:n]); reply != nil {
				socket.WriteTo(reply, from)
			}
		}
	})
	t.Cleanup(func() { socket.Close(); done.Wait() })
	return socket.LocalAddr().String()
}

func (s *nameServer) answer(question []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil {
		return nil
	}
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	for _, q := range m.Questions {
		header := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, Type: q.Type}
		name := strings.ToLower(q.Name.String())
		s.mu.Lock()
		value, ok := s.txt[name]
		s.mu.Unlock()
		switch {
		case q.Type == dnsmessage.TypeNS && name == "example.test.":
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.NSResource{NS: dnsmessage.MustNewName("ns.example.test.")}})
		case q.Type == dnsmessage.TypeA && name == "ns.example.test.":
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}})
		case q.Type == dnsmessage.TypeCNAME && name == "alias.example.test.":
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("target.example.test.")}})
		case name == "www.example.test.": // whatever is asked for, as a resolver answers
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, Type: dnsmessage.TypeCNAME},
				Body: &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("example.test.")}})
			if header.Name = dnsmessage.MustNewName("example.test."); q.Type == dnsmessage.TypeNS {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.NSResource{NS: dnsmessage.MustNewName("ns.example.test.")}})
			}
		case q.Type == dnsmessage.TypeCNAME && strings.HasPrefix(name, "loop"):
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("loop" + name)}})
		case q.Type == dnsmessage.TypeTXT && ok:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.TXTResource{TXT: []string{value}}})
		}
	}
	reply, err := m.Pack()
	if err != nil {
		return nil
	}
	return reply
}

// Without DNSServers a record is looked for at the zone's own name servers, which the system's
// find.
func TestOwnNameServersOfTheZone(t *testing.T) {
	server := &nameServer{txt: map[string]string{}}
	addr := server.start(t)
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	systems, usual := net.DefaultResolver, dnsPort
	net.DefaultResolver, dnsPort = resolver(addr), port
	defer func() { net.DefaultResolver, dnsPort = systems, usual }()
	s, _, _ := idle(t, func(a *Source) { a.DNSTimeout = 20 * time.Second })

	name, err := s.alias(t.Context(), "alias.example.test")
	require.NoError(t, err)
	assert.Equal(t, "target.example.test", name)
	_, err = s.alias(t.Context(), "loop.example.test")
	require.ErrorContains(t, err, "CNAME records lead")
	z, err := s.findZone(t.Context(), "_acme-challenge.a.b.example.test")
	require.NoError(t, err)
	assert.Equal(t, zone{"example.test", []string{"ns.example.test:" + port}}, z)
	z, err = s.findZone(t.Context(), "_acme-challenge.www.example.test")
	require.NoError(t, err)
	assert.Equal(t, "example.test", z.name, "an alias of a zone is none")
	_, err = s.findZone(t.Context(), "a.elsewhere.test")
	require.ErrorContains(t, err, "no zone is found for a.elsewhere.test")

	const record = "_acme-challenge.a.b.example.test"
	server.set(record+".", "an older value")
	timer := time.AfterFunc(500*time.Millisecond, func() { server.set(record+".", "value") })
	defer timer.Stop()
	require.NoError(t, s.awaitTXT(t.Context(), z, record, "value"))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	require.ErrorContains(t, s.awaitTXT(ctx, z, record, "another"), "ns.example.test:"+port+" does not have it")
}
