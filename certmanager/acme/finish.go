package acme

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/clock"
)

// unfinished is an order that is authorized.
type unfinished struct {
	ca    *ca
	order acme.Order
	key   crypto.Signer
	asked bool      // the CA was asked for the certificate
	until time.Time // it is not gone on with after that
}

// finishTime is how long an order that is authorized is gone on with.
const finishTime = time.Hour

// finish gets the certificate of an order that is authorized. It is looked at again as long as ctx
// allows, and by the next attempt: a CA may still call it ready after it was asked to make the
// certificate, and may not find the certificate at once.
func (s *state) finish(ctx context.Context, c *client, n *name) (*tls.Certificate, error) {
	u := n.unfinished
	csr, err := n.request(u.key)
	if err != nil {
		return nil, err
	}
	var chain []byte
	err = poll(ctx, func(ctx context.Context) (bool, error) {
		if err := u.advance(ctx, c, csr); err != nil || u.order.Status != acme.StatusValid {
			return false, err
		}
		var err error
		chain, err = download(ctx, c, u.order.Certificate)
		return chain != nil, err
	})
	if err != nil {
		if ctx.Err() == nil || !isTemporary(err) {
			n.unfinished = nil
		}
		return nil, err // else the next attempt goes on
	}
	n.unfinished = nil
	cert := &tls.Certificate{PrivateKey: u.key}
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		cert.Certificate = append(cert.Certificate, block.Bytes)
	}
	switch err := s.check(cert, n.text); {
	case errors.Is(err, certmanager.ErrExpired):
		// It is found in the cache when the clock has been set.
		s.mu.Lock()
		serving := n.cert != nil
		s.mu.Unlock()
		if !serving {
			err = errors.Join(err, s.store(ctx, n, c.ca, cert))
		}
		return nil, fmt.Errorf("%w: %w; by the clock of this machine it is %s: if that is ahead, set it", errUnusable, err, clock.Now().Format(time.RFC3339))
	case err != nil && !errors.Is(err, certmanager.ErrNotYetValid):
		return nil, fmt.Errorf("%w: %w", errUnusable, err)
	}
	return cert, nil
}

// advance looks at the order, and asks for its certificate if the CA calls it ready.
func (u *unfinished) advance(ctx context.Context, c *client, csr []byte) error {
	if u.asked {
		order, err := call(ctx, "order", func(ctx context.Context) (acme.Order, error) { return c.GetOrder(ctx, c.account, u.order) })
		if err != nil {
			return err
		}
		u.order = order
	}
	u.asked = true
	if err := failedOrder(u.order); err != nil || u.order.Status != acme.StatusReady {
		return err
	}
	order, err := call(ctx, "finalize", func(ctx context.Context) (acme.Order, error) { return c.FinalizeOrder(ctx, c.account, u.order, csr) })
	if p := (acme.Problem{}); errors.As(err, &p) {
		return err
	}
	if u.order = order; order.Status == acme.StatusValid {
		return nil
	}
	return err // whatever the state: it is looked at again
}

// request is the certificate request for a name.
func (n *name) request(key crypto.Signer) ([]byte, error) {
	// Without a common name, which is no place for names any more and has only 64 bytes.
	var template x509.CertificateRequest
	if addr, ok := n.addr(); ok {
		template.IPAddresses = []net.IP{addr.AsSlice()}
	} else {
		template.DNSNames = []string{n.text}
	}
	return x509.CreateCertificateRequest(rand.Reader, &template, key)
}

// download gets a chain. A CA may not find it at once.
func download(ctx context.Context, c *client, url string) ([]byte, error) {
	chains, err := call(ctx, "certificate", func(ctx context.Context) ([]acme.Certificate, error) {
		return c.GetCertificateChain(ctx, c.account, url)
	})
	var p acme.Problem
	switch {
	case errors.As(err, &p) && p.Status == http.StatusNotFound:
		return nil, errors.New(err.Error()) // temporary, unlike other 404s
	case err != nil:
		return nil, err
	case len(chains) == 0 || len(chains[0].ChainPEM) == 0:
		return nil, fmt.Errorf("%w: the CA gave no certificate", certmanager.ErrInvalid)
	}
	return chains[0].ChainPEM, nil
}
