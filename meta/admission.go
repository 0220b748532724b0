package meta

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

// handshakeLimiter bounds how many handshakes compute at a time. It is first come, first served.
type handshakeLimiter struct{ places chan struct{} }

func newHandshakeLimiter(places int) *handshakeLimiter {
	return &handshakeLimiter{make(chan struct{}, places)}
}

// enter takes a place, or returns the error of the context.
func (l *handshakeLimiter) enter(ctx context.Context) error {
	select {
	case l.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *handshakeLimiter) leave() { <-l.places }

// addressBook counts connections and failed handshakes by address. A zero limit turns its count off.
type addressBook struct {
	maxConnections, maxFailures int

	mu          sync.Mutex // guards all below
	connections map[netip.Addr]int
	failures    map[netip.Addr]int
	minute      time.Time // when the count of failures began
}

func newAddressBook(maxConnections, maxFailures int) *addressBook {
	return &addressBook{
		maxConnections: maxConnections, maxFailures: maxFailures,
		connections: map[netip.Addr]int{}, failures: map[netip.Addr]int{},
	}
}

// admit counts a connection from addr, or refuses it with the name of the option whose limit is reached.
func (b *addressBook) admit(addr netip.Addr) (refusedBy string) {
	if !addr.IsValid() {
		return ""
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forgetFailures()
	switch {
	case b.maxFailures > 0 && b.failures[addr] >= b.maxFailures:
		return "MaxHandshakeFailures"
	case b.maxConnections == 0:
		return ""
	case b.connections[addr] >= b.maxConnections:
		return "MaxConnectionsPerAddress"
	}
	b.connections[addr]++
	return ""
}

// release undoes what admit has counted.
func (b *addressBook) release(addr netip.Addr) {
	if b.maxConnections == 0 || !addr.IsValid() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.connections[addr]--; b.connections[addr] <= 0 {
		delete(b.connections, addr)
	}
}

// failed counts a failed handshake.
func (b *addressBook) failed(addr netip.Addr) {
	if b.maxFailures == 0 || !addr.IsValid() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forgetFailures()
	b.failures[addr]++
}

// forgetFailures starts the count anew each minute, so that the map can't grow for longer than that.
func (b *addressBook) forgetFailures() {
	if now := time.Now(); now.Sub(b.minute) >= time.Minute {
		clear(b.failures)
		b.minute = now
	}
}

// complaints lets one log line pass for each source and minute, and no more than maxComplaints in all: strangers can
// cause as many as they like.
type complaints struct {
	mu      sync.Mutex // guards all below
	sources map[netip.Addr]struct{}
	minute  time.Time // when sources began
}

const maxComplaints = 100

func (c *complaints) allow(source netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); c.sources == nil || now.Sub(c.minute) >= time.Minute {
		c.sources, c.minute = map[netip.Addr]struct{}{}, now
	}
	if _, known := c.sources[source]; known || len(c.sources) >= maxComplaints {
		return false
	}
	c.sources[source] = struct{}{}
	return true
}

// limitAddr gives what an address counts as: IPv4 itself, IPv6 its /64 network, because one
// subscriber has all of that. It is invalid for what is not IP.
func limitAddr(addr net.Addr) netip.Addr {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	if ip.Is6() {
		prefix, _ := ip.Prefix(64) // can't fail: 64 is in range
		return prefix.Addr()
	}
	return ip
}
