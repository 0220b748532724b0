package acmetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/http"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/letsencrypt/pebble/v2/db"
)

// faults is the front of Pebble: it counts what comes through, and hinders it.
type faults struct {
	pebble http.Handler
	store  *db.MemoryStore
	dns    *resolver

	mu       sync.Mutex    // guards all below
	resume   chan struct{} // closed when the CA does not hang
	slow     time.Duration
	refuse   int
	after    time.Duration
	nonces   int
	renewal  *renewalInfo
	accounts []string        // URLs
	lost     map[string]bool // of them
	orders   [][]string      // the names of each
	replaced int             // of the orders, how many replace a certificate
	requests int

	ready, notReady, noCertificate int // how many answers are still to be these
}

// renewalInfo is what the CA says about when to renew, RFC 9773.
type renewalInfo struct {
	start, end time.Time
	again      time.Duration
}

func newFaults(pebble http.Handler, store *db.MemoryStore, dns *resolver) *faults {
	w := &faults{pebble: pebble, store: store, dns: dns, resume: make(chan struct{}), lost: make(map[string]bool)}
	close(w.resume)
	return w
}

// Slow delays every answer. Zero ends it.
func (w *faults) Slow(delay time.Duration) { w.change(func() { w.slow = delay }) }

// Refuse answers every request with an HTTP status, for example 503 or 429, and a
// Retry-After in whole seconds if it is not zero. Status zero ends it.
func (w *faults) Refuse(status int, retryAfter time.Duration) {
	w.change(func() { w.refuse, w.after = status, retryAfter })
}

// Hang leaves requests without an answer until it is called with false, or the client
// goes away.
func (w *faults) Hang(hang bool) {
	w.change(func() {
		select {
		case <-w.resume:
			if hang {
				w.resume = make(chan struct{})
			}
		default:
			if !hang {
				close(w.resume)
			}
		}
	})
}

// RejectNonces refuses a percentage of the good nonces, as CAs do when a request reaches another of
// their machines.
func (w *faults) RejectNonces(percent int) { w.change(func() { w.nonces = percent }) }

// FailValidation makes the validation of the names for which fail returns true fail, for every
// challenge, as if their DNS were broken. Nil ends it. fail is called from several goroutines.
func (w *faults) FailValidation(fail func(name string) bool) { w.dns.setFail(fail) }

// LoseAccounts forgets all accounts that were registered so far. Their orders stay.
func (w *faults) LoseAccounts() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, url := range w.accounts {
		if w.lost[url] {
			continue
		}
		// Pebble cannot delete an account, but its key can be made to be another's.
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return fmt.Errorf("acmetest: %w", err)
		}
		account := w.store.GetAccountByID(path.Base(url))
		if account == nil {
			return fmt.Errorf("acmetest: Pebble does not know the account %s", url)
		}
		if err := w.store.ChangeAccountKey(account, &jose.JSONWebKey{Key: key.Public()}); err != nil {
			return fmt.Errorf("acmetest: %w", err)
		}
		w.lost[url] = true
	}
	return nil
}

// StayReady makes the next n answers about orders that are being finalized, or are finalized, have
// the status "ready" (golang.org/issue/52597).
func (w *faults) StayReady(n int) { w.change(func() { w.ready = n }) }

// NotReady refuses the next n requests to finalize an order with the error orderNotReady.
func (w *faults) NotReady(n int) { w.change(func() { w.notReady = n }) }

// NoCertificate answers the next n requests for a certificate that was issued with 404.
func (w *faults) NoCertificate(n int) { w.change(func() { w.noCertificate = n }) }

// take counts one of the answers down, and reports whether there was one.
func (w *faults) take(count *int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	*count--
	*count = max(*count, -1)
	return *count >= 0
}

// SetRenewalInfo makes the CA offer renewal information (RFC 9773): every certificate is to be
// renewed between start and end, and clients are to ask again after retryAfter, in whole seconds.
// Before the first call the directory does not offer it; a client that has already read the
// directory does not notice.
func (w *faults) SetRenewalInfo(start, end time.Time, retryAfter time.Duration) {
	w.change(func() { w.renewal = &renewalInfo{start, end, retryAfter} })
}

// Orders counts the accepted orders; with names only those for exactly these names.
func (w *faults) Orders(names ...string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	count := 0
	slices.Sort(names)
	for _, order := range w.orders {
		if len(names) == 0 || slices.Equal(order, names) {
			count++
		}
	}
	return count
}

// Replacements counts the orders that said which certificate they replace (RFC 9773 section 5).
func (w *faults) Replacements() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.replaced
}

// Accounts counts the registered accounts, including lost ones.
func (w *faults) Accounts() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.accounts)
}

// Requests counts the HTTP requests, including refused ones.
func (w *faults) Requests() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.requests
}

func (w *faults) change(edit func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	edit()
}

// clear ends all that could keep a request from being answered.
func (w *faults) clear() {
	w.Hang(false)
	w.Slow(0)
}
