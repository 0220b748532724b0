package status

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ergotls/ergotls/certmanager"
)

// Check is a condition of a program's health, see [Page.SetHealth].
type Check int

const (
	// CertificatesValid holds while every served certificate is valid now, and there is one if an
	// ACME source has Domains. Otherwise handshakes fail.
	CertificatesValid Check = iota

	// NothingExpired is CertificatesValid, and no intermediate, CA or revocation list has expired.
	NothingExpired

	// NoDrift holds while the manager serves what its source has: the last reload did not fail.
	NoDrift
)

// String returns the name of the constant.
func (c Check) String() string {
	switch c {
	case CertificatesValid:
		return "CertificatesValid"
	case NothingExpired:
		return "NothingExpired"
	case NoDrift:
		return "NoDrift"
	}
	return fmt.Sprintf("Check(%d)", int(c))
}

// fails returns why a check fails, without the names of peers and files, or "" if it passes.
func (c Check) fails(s *certmanager.Status, now time.Time) string {
	ended := func(all []certmanager.CertificateInfo) (n int) {
		for _, one := range all {
			if now.After(one.NotAfter) || now.Before(one.NotBefore) {
				n++
			}
		}
		return n
	}
	switch c {
	case NothingExpired:
		if why := CertificatesValid.fails(s, now); why != "" {
			return why
		}
		if n := ended(slices.Concat(s.Intermediates, s.ClientCAs, s.RootCAs)); n > 0 {
			return plural(n, "intermediate or CA has expired", "intermediates or CAs have expired")
		}
		n := 0
		for _, list := range s.CRLs {
			if !list.NextUpdate.IsZero() && now.After(list.NextUpdate) {
				n++
			}
		}
		if n > 0 {
			return plural(n, "revocation list is out of date", "revocation lists are out of date")
		}
	case NoDrift:
		if s.Drift {
			return "what the source has was rejected"
		}
	default:
		if n := ended(s.Certificates); n > 0 {
			return plural(n, "certificate has expired or is not valid yet", "certificates have expired or are not valid yet")
		}
		// Names that clients ask for do not count: anyone could have the server removed.
		if len(s.Certificates) == 0 && slices.ContainsFunc(s.ACME, func(o certmanager.OrderStatus) bool { return !o.OnDemand }) {
			return "there is no certificate yet"
		}
	}
	return ""
}

// SetHealth sets the checks of healthz and [Page.Health]; the answer is 503 if one fails. The
// default is CertificatesValid. A load balancer removes a server that answers 503: use NoDrift for
// alerts only, since a server that could not reload still serves its last good set. SetHealth
// panics if a check is not one of the constants.
func (p *Page) SetHealth(checks ...Check) {
	for _, c := range checks {
		if c < CertificatesValid || c > NoDrift {
			panic(fmt.Sprintf("status: SetHealth: %v is not a check", c))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checks = slices.Clone(checks)
}

// Health returns a handler that answers 200 with "ok", or 503 with a line for each failed check. It
// names managers but no peers, so it can be served without authentication.
func (p *Page) Health() http.Handler { return http.HandlerFunc(p.serveHealth) }

func (p *Page) serveHealth(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "healthz is read-only", http.StatusMethodNotAllowed)
		return
	}
	p.mu.Lock()
	managers, checks := maps.Clone(p.managers), p.checks
	p.mu.Unlock()
	var failed []string
	for _, name := range slices.Sorted(maps.Keys(managers)) {
		status := managers[name].Status()
		for _, c := range checks {
			if why := c.fails(&status, time.Now()); why != "" {
				failed = append(failed, fmt.Sprintf("%s: %v: %s", name, c, why))
			}
		}
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if len(failed) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, strings.Join(failed, "\n"))
		return
	}
	fmt.Fprintln(w, "ok")
}
