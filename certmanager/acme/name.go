package acme

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"golang.org/x/net/idna"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/clock"
)

// name is a name with its certificate.
type name struct {
	text  string // as ordered: a DNS name, a wildcard or an IP address
	fixed bool   // one of Domains
	stop  func() // ends maintain; nil for Domains

	// Guarded by state.mu.
	cert     *tls.Certificate // in service; nil if there is none
	expired  *tls.Certificate // the last that was not served because it had expired; nil once another is served
	asked    bool             // a handshake has asked for it since the last attempt began
	busy     bool             // an attempt runs or is about to
	changed  chan struct{}    // closed and replaced when an attempt ends or is requested
	failures int              // consecutive
	step     int              // backoff step: failures since the last certificate expired
	err      error            // of the last attempt
	due      time.Time        // of the next attempt or renewal
	wanted   time.Time        // when a handshake last asked for it

	// Written by maintain, and by start before it; read for Status.
	unsaved atomic.Pointer[tls.Certificate] // issued, and not in the cache yet
	record  atomic.Pointer[Record]          // for DNS-PERSIST-01, as last seen
	ca      atomic.Pointer[ca]              // the last issuer, or the first to ask
	kind    atomic.Pointer[string]          // of the last successful challenge

	// Used only by maintain, and by start before it.
	retryAt  map[*ca]time.Time // with Fallbacks: when each CA may be asked, after it refused
	looks    time.Time         // when to check the cache and the renewal information again
	earliest time.Time         // of the next renewal after an order, even if our clock is ahead of the CA's
	unlocked bool              // the lock failed: an order does not wait longer for the cache than necessary
	info     acme.RenewalInfo  // of cert
	asks     time.Time         // when to ask the CA for info again
	reported map[string]bool   // current faults that were reported
}

// wildcard reports whether the name is a wildcard.
func (n *name) wildcard() bool { return strings.HasPrefix(n.text, "*.") }

// base returns the name without the wildcard.
func (n *name) base() string { return strings.TrimPrefix(n.text, "*.") }

// file returns the name as part of a file name, which may have at most 255 bytes including
// additions.
func (n *name) file() string {
	const most = 150
	file := strings.NewReplacer("*", "_", ":", "-").Replace(n.text)
	if len(file) <= most {
		return file
	}
	sum := sha256.Sum256([]byte(n.text))
	return file[:most-33] + "-" + hex.EncodeToString(sum[:16])
}

func (n *name) identifier() acme.Identifier {
	if isAddress(n.text) {
		return acme.Identifier{Type: "ip", Value: n.text}
	}
	return acme.Identifier{Type: "dns", Value: n.text}
}

// sni returns the server name of a CA in a TLS-ALPN-01 challenge: for an address its reverse name
// (RFC 8738 section 6).
func (n *name) sni() string {
	if addr, err := netip.ParseAddr(n.text); err == nil {
		return reverseName(addr)
	}
	return n.text
}

func (s *state) newName(text string, fixed bool) *name {
	n := &name{text: text, fixed: fixed, busy: true, changed: make(chan struct{}), reported: make(map[string]bool), retryAt: make(map[*ca]time.Time)}
	n.ca.Store(s.cas[0])
	return n
}

// notify wakes goroutines that wait for the name. The caller holds mu.
func (n *name) notify() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// ended records the result of an attempt, and when the next one is due. The caller holds mu.
func (n *name) ended(err error, due time.Time) {
	n.busy, n.err, n.due = false, err, due
	n.notify()
}

// notDueBefore postpones the next attempt. The caller holds mu.
func (n *name) notDueBefore(when time.Time) {
	if n.due.Before(when) {
		n.due = when
	}
}

// serving returns the certificate of a name in service, nil if there is none.
func (s *state) serving(n *name) *tls.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return n.cert
}

// await waits for the certificate of a name until stop, called with mu held, returns true or ctx
// ends. It returns nil if there is none.
func (s *state) await(ctx context.Context, n *name, stop func() bool) *tls.Certificate {
	for {
		s.mu.Lock()
		cert, stopped, changed := n.cert, stop(), n.changed
		s.mu.Unlock()
		switch {
		case cert != nil && clock.Now().Before(endOfService(cert.Leaf)):
			return cert
		case stopped || ctx.Err() != nil:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// identifier returns the form in which a name of Domains is ordered: a DNS name, an IP address, or
// a wildcard where challenges in DNS can be answered.
func identifier(name string, dns bool) (string, error) {
	if addr, err := netip.ParseAddr(name); err == nil && addr.Zone() == "" {
		return addr.Unmap().String(), nil
	}
	rest, wildcard := strings.CutPrefix(name, "*.")
	if !wildcard || !dns {
		return normalName(name)
	}
	base, err := normalName(rest)
	return "*." + base, err
}

// reverseName returns the reverse DNS name of an address.
func reverseName(addr netip.Addr) string {
	b := addr.AsSlice()
	if addr.Is4() {
		return fmt.Sprintf("%d.%d.%d.%d.in-addr.arpa", b[3], b[2], b[1], b[0])
	}
	name := "ip6.arpa"
	for _, b := range b {
		name = fmt.Sprintf("%x.%x.%s", b&15, b>>4, name)
	}
	return name
}

// normalName returns the form in which a DNS name is ordered and stored, or an error that says why
// no public CA would issue for it.
func normalName(name string) (string, error) {
	ascii, err := idna.Lookup.ToASCII(strings.TrimSuffix(name, "."))
	labels := strings.Split(ascii, ".")
	if err == nil && len(labels) > 1 && !slices.Contains(labels, "") && len(ascii) <= 253 && !isAddress(ascii) {
		return ascii, nil
	}
	return "", fmt.Errorf("%w: %q %s", certmanager.ErrInvalid, name, whyNoName(name, err))
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// whyNoName returns an error for a string that is no DNS name, with what to write instead.
func whyNoName(name string, err error) string {
	host, _, port := strings.Cut(name, ":")
	switch {
	case name == "":
		return "is empty"
	case strings.ContainsAny(name, " \t\r\n,;"):
		return "has a space or a separator in it: give each name as an element of its own"
	case strings.Contains(name, "://") || strings.Contains(name, "/"):
		return "is a URL: give only its host name"
	case strings.Contains(name, "@"):
		return "is an e-mail address: give only its domain"
	case strings.HasPrefix(name, "[") && strings.Contains(name, "]"):
		return fmt.Sprintf("is not an IP address as it is ordered: give %q", name[1:strings.Index(name, "]")])
	case strings.Contains(name, "%") && isAddress(name):
		return "is an IP address of one network interface: no CA issues for it"
	case isAddress(name):
		return "is an IP address: give a DNS name"
	case port && host != "":
		return fmt.Sprintf("has a port: give %q, certificates are for names", host)
	case strings.HasPrefix(name, "*."):
		return "is a wildcard, which needs challenges in DNS: set DNSPersist or DNS"
	case strings.Contains(name, "*"):
		return `is a pattern: only the whole left-most label can be a wildcard, "*.example.com"`
	case !strings.Contains(strings.Trim(name, "."), "."):
		return "has no dot: no public CA issues for it"
	case err != nil:
		return fmt.Sprintf("is not a DNS name: %v", err)
	}
	return "is not a DNS name"
}
