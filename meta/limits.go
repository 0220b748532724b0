package meta

import (
	"container/list"
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

// handshakeLimiter limits how many handshakes compute at a time, in the order of their arrival.
type handshakeLimiter struct {
	mu        sync.Mutex // guards all
	max, used int
	waiting   list.List // of chan struct{}, each closed when its handshake gets a place
}

// enter takes a place, or returns the error of the context.
func (l *handshakeLimiter) enter(ctx context.Context) error {
	l.mu.Lock()
	if l.used < l.max { // then none is waiting
		l.used++
		l.mu.Unlock()
		return nil
	}
	placed := make(chan struct{})
	place := l.waiting.PushBack(placed)
	l.mu.Unlock()
	select {
	case <-placed:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if isClosed(placed) { // it got a place meanwhile
		return nil
	}
	l.waiting.Remove(place)
	return ctx.Err()
}

func (l *handshakeLimiter) leave() { l.change(func() { l.used-- }) }

// setMax changes the number of places. Handshakes that hold one keep it.
func (l *handshakeLimiter) setMax(places int) { l.change(func() { l.max = places }) }

func (l *handshakeLimiter) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f(); l.used < l.max && l.waiting.Len() > 0; l.used++ {
		close(l.waiting.Remove(l.waiting.Front()).(chan struct{}))
	}
}

// inUse returns the number of places in use.
func (l *handshakeLimiter) inUse() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used
}

// addressTable counts each address's open connections, and its failures within a minute. The
// server's mu guards it.
type addressTable struct {
	used   map[netip.Addr]addressUse
	minute time.Time // when the current minute began
	lines  int       // logged within the minute
}

type addressUse struct {
	connections int
	failures    int  // handshakes that failed within the minute
	logged      uint // a bit for each of refusals: logged within the minute
}

// maxLines is how many lines about refused peers are logged in a minute, one for each address and
// reason.
const maxLines = 100

// get returns the entry of addr. The caller may change it and put it back.
func (t *addressTable) get(addr netip.Addr) addressUse {
	if now := time.Now(); now.Sub(t.minute) >= time.Minute {
		t.minute, t.lines = now, 0
		for addr, use := range t.used {
			t.put(addr, addressUse{connections: use.connections})
		}
	}
	return t.used[addr]
}

// put stores the entry of addr, or deletes an empty one.
func (t *addressTable) put(addr netip.Addr, use addressUse) {
	if use == (addressUse{}) {
		delete(t.used, addr)
	} else {
		t.used[addr] = use
	}
}

// admit counts a connection from addr, or returns the name of the option whose limit is reached. An
// address that is not IP has no limit; -1 means no limit.
func (t *addressTable) admit(addr netip.Addr, max MessageTCPLimits) (refusedBy string) {
	use := t.get(addr)
	switch {
	case addr.IsValid() && max.MaxHandshakeFailures > 0 && use.failures >= max.MaxHandshakeFailures:
		return "MaxHandshakeFailures"
	case addr.IsValid() && max.MaxConnectionsPerAddress > 0 && use.connections >= max.MaxConnectionsPerAddress:
		return "MaxConnectionsPerAddress"
	}
	use.connections++
	t.put(addr, use)
	return ""
}

// release undoes admit.
func (t *addressTable) release(addr netip.Addr) {
	use := t.get(addr)
	use.connections--
	t.put(addr, use)
}

// failed counts a failed handshake.
func (t *addressTable) failed(addr netip.Addr) {
	use := t.get(addr)
	use.failures++
	t.put(addr, use)
}

// mayLog allows one line a minute for each address and reason, and at most maxLines in total,
// because peers can cause any number.
func (t *addressTable) mayLog(addr netip.Addr, why int) bool {
	bit := uint(1) << why
	use := t.get(addr)
	if use.logged&bit != 0 || t.lines >= maxLines {
		return false
	}
	use.logged |= bit
	t.lines++
	t.put(addr, use)
	return true
}

// limitAddr returns the address that limits count: an IPv4 address itself, for IPv6 its /64
// network, because one subscriber has all of it. The result is invalid if addr is not IP.
func limitAddr(addr net.Addr) netip.Addr {
	ip := ipOf(addr)
	if ip.Is6() {
		prefix, _ := ip.Prefix(64) // can't fail: 64 is in range
		return prefix.Addr()
	}
	return ip
}

// ipOf returns the IP address without its zone, an IPv4-mapped one as IPv4. The result is invalid
// if addr is not IP.
func ipOf(addr net.Addr) netip.Addr {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}
