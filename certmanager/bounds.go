package certmanager

import (
	"errors"
	"fmt"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
	"github.com/ergotls/ergotls/internal/dn"
)

// What a peer sends is cut before it is kept in an event, a log line or a status: anyone can send a
// certificate with 80,000 names, and events may wait for a slow subscriber.
const (
	maxPeerNames = 20   // of a certificate
	maxPeerText  = 256  // bytes of a name, a subject, a serial number
	maxPeerError = 1024 // bytes of an error
)

// bounded cuts what a peer has chosen.
func (c CertificateInfo) bounded() CertificateInfo {
	c.Subject, c.Issuer, c.Serial = trust.Cut(c.Subject, maxPeerText), trust.Cut(c.Issuer, maxPeerText), trust.Cut(c.Serial, maxPeerText)
	more := len(c.Names) - maxPeerNames
	names := make([]string, 0, min(len(c.Names), maxPeerNames)+1)
	for _, name := range c.Names[:cap(names)-1] {
		names = append(names, trust.Cut(name, maxPeerText))
	}
	if c.Names = names; more > 0 {
		c.Names = append(names, fmt.Sprintf("and %d more", more))
	}
	return c
}

// peerError is an error about a peer without what the peer has sent: the errors of crypto/tls hold
// its certificates.
type peerError struct {
	text    string
	reasons []error // this package's
}

func (e *peerError) Error() string { return e.text }

func (e *peerError) Unwrap() []error { return e.reasons }

// boundedError keeps the text and the reasons of an error about a peer.
func boundedError(err error) error {
	if err == nil {
		return nil
	}
	short := &peerError{text: trust.Cut(dn.Printable(err.Error()), maxPeerError)}
	for _, reason := range append(refusedSentinels[:], ErrRecycled) {
		if errors.Is(err, reason) {
			short.reasons = append(short.reasons, reason)
		}
	}
	return short
}
