package acmetest

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// resolver answers that every name is 127.0.0.1, and has the TXT and CNAME records that it was
// given. It is not challtestsrv's, which cannot tell its port and whose servers of one process
// share one handler.
type resolver struct {
	tcp, udp *dns.Server // on the same port
	done     sync.WaitGroup

	mu    sync.Mutex // guards all below
	fail  func(name string) bool
	txt   map[string][]string
	cname map[string]string
}

func newResolver() (*resolver, error) {
	r := &resolver{txt: make(map[string][]string), cname: make(map[string]string)}
	listener, packets, err := listenBoth()
	if err != nil {
		return nil, fmt.Errorf("acmetest: DNS: %w", err)
	}
	r.tcp, r.udp = &dns.Server{Listener: listener}, &dns.Server{PacketConn: packets}
	for _, server := range []*dns.Server{r.tcp, r.udp} {
		started := make(chan struct{})
		server.Handler, server.NotifyStartedFunc = dns.HandlerFunc(r.answer), func() { close(started) }
		r.done.Go(func() { server.ActivateAndServe() })
		<-started
	}
	return r, nil
}

// listenBoth finds a port that is free for TCP, which Pebble uses, and for UDP.
func listenBoth() (listener net.Listener, packets net.PacketConn, err error) {
	for range 20 {
		if listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, nil, err
		}
		if packets, err = net.ListenPacket("udp", listener.Addr().String()); err == nil {
			return listener, packets, nil
		}
		listener.Close()
	}
	return nil, nil, err
}

func (r *resolver) addr() string { return r.tcp.Listener.Addr().String() }

func (r *resolver) answer(w dns.ResponseWriter, question *dns.Msg) {
	reply := new(dns.Msg).SetReply(question)
	reply.Authoritative = true
	for _, q := range question.Question {
		name := canonical(q.Name)
		if r.fails(name) {
			reply.Rcode = dns.RcodeServerFailure
			continue
		}
		r.mu.Lock()
		if target, ok := r.cname[name]; ok {
			reply.Answer = append(reply.Answer, &dns.CNAME{Hdr: header(q.Name, dns.TypeCNAME), Target: dns.Fqdn(target)})
			name = target
		}
		values := slices.Clone(r.txt[name])
		r.mu.Unlock()
		switch q.Qtype {
		case dns.TypeA:
			reply.Answer = append(reply.Answer, &dns.A{Hdr: header(dns.Fqdn(name), dns.TypeA), A: net.IPv4(127, 0, 0, 1)})
		case dns.TypeTXT:
			for _, value := range values {
				reply.Answer = append(reply.Answer, &dns.TXT{Hdr: header(dns.Fqdn(name), dns.TypeTXT), Txt: chunks(value)})
			}
		case dns.TypeNS:
			if name == zoneOf(name) {
				reply.Answer = append(reply.Answer, &dns.NS{Hdr: header(dns.Fqdn(name), dns.TypeNS), Ns: "ns." + dns.Fqdn(name)})
			}
		case dns.TypeSOA:
			zone := dns.Fqdn(zoneOf(name))
			soa := &dns.SOA{Hdr: header(zone, dns.TypeSOA), Ns: "ns." + zone, Mbox: "hostmaster." + zone, Serial: 1, Refresh: 60, Retry: 60, Expire: 60, Minttl: 1}
			if dns.Fqdn(name) == zone {
				reply.Answer = append(reply.Answer, soa)
			} else {
				reply.Ns = append(reply.Ns, soa)
			}
		}
	}
	w.WriteMsg(reply)
}

func header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET}
}

// zoneOf is the zone of a name: its last two labels.
func zoneOf(name string) string {
	labels := strings.Split(name, ".")
	return strings.Join(labels[max(0, len(labels)-2):], ".")
}

// canonical is a name without the last dot, in lower case.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// chunks cuts a text into strings of at most 255 bytes, RFC 1035 section 3.3.14.
func chunks(text string) (all []string) {
	for len(text) > 255 {
		all, text = append(all, text[:255]), text[255:]
	}
	return append(all, text)
}

func (r *resolver) fails(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fail != nil && r.fail(name)
}

func (r *resolver) setFail(fail func(string) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = fail
}

func (r *resolver) close() {
	ctx, cancel := within()
	defer cancel()
	for _, server := range []*dns.Server{r.tcp, r.udp} {
		server.ShutdownContext(ctx)
	}
	r.done.Wait()
}

// DNS is the address, host:port, of the name server that the CA asks, over UDP and TCP. Every name
// is 127.0.0.1 there, and the last two labels of a name are its zone.
func (s *Server) DNS() string { return s.dns.addr() }

// SetTXT replaces the TXT records of a name by the values. Without values it removes them.
func (s *Server) SetTXT(name string, values ...string) {
	s.dns.mu.Lock()
	defer s.dns.mu.Unlock()
	delete(s.dns.txt, canonical(name))
	if len(values) > 0 {
		s.dns.txt[canonical(name)] = slices.Clone(values)
	}
}

// TXT returns the names that have TXT records, with their values.
func (s *Server) TXT() map[string][]string {
	s.dns.mu.Lock()
	defer s.dns.mu.Unlock()
	all := maps.Clone(s.dns.txt)
	for name, values := range all {
		all[name] = slices.Clone(values)
	}
	return all
}

// SetCNAME makes a name an alias of target. An empty target ends it.
func (s *Server) SetCNAME(name, target string) {
	s.dns.mu.Lock()
	defer s.dns.mu.Unlock()
	delete(s.dns.cname, canonical(name))
	if target != "" {
		s.dns.cname[canonical(name)] = canonical(target)
	}
}
