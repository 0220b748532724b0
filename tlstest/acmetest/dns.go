package acmetest

import (
	"fmt"
	"net"
	"sync"

	"github.com/miekg/dns"
)

// resolver answers that every name is 127.0.0.1. It is not challtestsrv's, which cannot
// tell its port and whose servers of one process share one handler.
type resolver struct {
	server *dns.Server
	done   sync.WaitGroup

	mu   sync.Mutex // guards fail
	fail func(name string) bool
}

func newResolver() (*resolver, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // Pebble asks over TCP only
	if err != nil {
		return nil, fmt.Errorf("acmetest: DNS: %w", err)
	}
	r := &resolver{}
	started := make(chan struct{})
	r.server = &dns.Server{Listener: listener, Handler: dns.HandlerFunc(r.answer), NotifyStartedFunc: func() { close(started) }}
	r.done.Go(func() { r.server.ActivateAndServe() })
	<-started
	return r, nil
}

func (r *resolver) addr() string { return r.server.Listener.Addr().String() }

func (r *resolver) answer(w dns.ResponseWriter, question *dns.Msg) {
	reply := new(dns.Msg).SetReply(question)
	for _, q := range question.Question {
		switch {
		case r.fails(q.Name):
			reply.Rcode = dns.RcodeServerFailure
		case q.Qtype == dns.TypeA:
			header := dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}
			reply.Answer = append(reply.Answer, &dns.A{Hdr: header, A: net.IPv4(127, 0, 0, 1)})
		}
	}
	w.WriteMsg(reply)
}

func (r *resolver) fails(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fail != nil && r.fail(name[:len(name)-1])
}

func (r *resolver) setFail(fail func(string) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = fail
}

func (r *resolver) close() {
	ctx, cancel := within()
	defer cancel()
	r.server.ShutdownContext(ctx)
	r.done.Wait()
}
