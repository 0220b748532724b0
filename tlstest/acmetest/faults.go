package acmetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/letsencrypt/pebble/v2/core"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// faults is the front of Pebble: it counts what comes through, and hinders it.
type faults struct {
	pebble http.Handler
	store  *db.MemoryStore
	dns    *resolver

	mu       sync.Mutex    // guards all below
	calm     chan struct{} // closed when the CA does not hang
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

// Paths of Pebble that it does not export.
const (
	newAccountPath  = "/sign-me-up"
	newOrderPath    = "/order-plz"
	noncePath       = "/nonce-plz"
	orderPath       = "/my-order/"
	finalizePath    = "/finalize-order/"
	certificatePath = "/certZ/"
	renewalInfoPath = "/draft-ietf-acme-ari-03/renewalInfo/"
)

func newFaults(pebble http.Handler, store *db.MemoryStore, dns *resolver) *faults {
	w := &faults{pebble: pebble, store: store, dns: dns, calm: make(chan struct{}), lost: make(map[string]bool)}
	close(w.calm)
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
		case <-w.calm:
			if hang {
				w.calm = make(chan struct{})
			}
		default:
			if !hang {
				close(w.calm)
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

// take counts one of the answers down, and says whether there was one.
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

func (w *faults) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	w.requests++
	calm, slow, refuse, after, nonces, renewal := w.calm, w.slow, w.refuse, w.after, w.nonces, w.renewal
	w.mu.Unlock()
	select {
	case <-calm:
	case <-r.Context().Done():
		return
	}
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-r.Context().Done():
			return
		}
	}
	if refuse != 0 {
		setRetryAfter(out.Header(), after)
		problem(out, refuse, "rateLimited", "acmetest refuses everything")
		return
	}
	request, err := readJWS(r)
	switch {
	case err != nil:
		problem(out, http.StatusBadRequest, "malformed", err.Error())
	case w.isLost(request.kid):
		w.nonce(out, r)
		problem(out, http.StatusBadRequest, "accountDoesNotExist", "Account "+request.kid+" not found.")
	case request.signed && mathrand.IntN(100) < nonces:
		w.nonce(out, r)
		problem(out, http.StatusBadRequest, "badNonce", "acmetest rejects this nonce")
	case strings.HasPrefix(r.URL.Path, finalizePath) && w.take(&w.notReady):
		w.nonce(out, r)
		problem(out, http.StatusForbidden, "orderNotReady", "acmetest says that the order is not ready")
	case strings.HasPrefix(r.URL.Path, certificatePath) && w.take(&w.noCertificate):
		w.nonce(out, r)
		problem(out, http.StatusNotFound, "malformed", "acmetest does not find the certificate")
	default:
		w.pass(out, r, request, renewal)
	}
}

// pass lets Pebble answer, and notes or changes what it says.
func (w *faults) pass(out http.ResponseWriter, r *http.Request, request jws, renewal *renewalInfo) {
	answer := httptest.NewRecorder()
	unlock := w.lockReplaced(request)
	w.pebble.ServeHTTP(answer, r)
	unlock()
	body := answer.Body.Bytes()
	switch {
	case answer.Code >= http.StatusBadRequest:
	case r.URL.Path == newAccountPath && answer.Code == http.StatusCreated:
		w.change(func() { w.accounts = append(w.accounts, answer.Header().Get("Location")) })
	case r.URL.Path == newOrderPath && answer.Code == http.StatusCreated:
		names, replaces := request.order()
		w.change(func() {
			w.orders = append(w.orders, names)
			if replaces != "" {
				w.replaced++
			}
		})
	case strings.HasPrefix(r.URL.Path, orderPath), strings.HasPrefix(r.URL.Path, finalizePath):
		body = w.stayReady(body)
	case r.URL.Path == wfe.DirectoryPath && r.Method == http.MethodGet && renewal == nil:
		body = without(body, "renewalInfo")
	case strings.HasPrefix(r.URL.Path, renewalInfoPath) && renewal != nil:
		setRetryAfter(answer.Header(), renewal.again)
		body, _ = json.Marshal(map[string]any{"suggestedWindow": map[string]time.Time{"start": renewal.start, "end": renewal.end}})
	}
	for name, values := range answer.Header() {
		out.Header()[name] = values
	}
	out.WriteHeader(answer.Code)
	out.Write(body)
}

// stayReady makes an order ready that is further.
func (w *faults) stayReady(order []byte) []byte {
	var state struct{ Status string }
	if json.Unmarshal(order, &state) != nil || state.Status != "processing" && state.Status != "valid" || !w.take(&w.ready) {
		return order
	}
	return without([]byte(strings.Replace(string(order), `"status": "`+state.Status+`"`, `"status": "ready"`, 1)), "certificate")
}

// lockReplaced holds the order of the certificate that a request replaces: Pebble reads it without
// its lock while another goroutine may be marking it as replaced.
func (w *faults) lockReplaced(request jws) (unlock func()) {
	_, replaces := request.order()
	issuer, serial, _ := strings.Cut(replaces, ".")
	akid, err := base64.RawURLEncoding.DecodeString(issuer)
	if err != nil || replaces == "" {
		return func() {}
	}
	number, _ := base64.RawURLEncoding.DecodeString(serial)
	id, err := core.NewCertID(number, akid)
	if err != nil {
		return func() {}
	}
	order, err := w.store.GetOrderByIssuedSerial(id.SerialHex())
	if err != nil {
		return func() {}
	}
	order.Lock()
	return order.Unlock
}

func (w *faults) isLost(kid string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost[kid]
}

// nonce adds a good nonce to an answer that does not come from Pebble.
func (w *faults) nonce(out http.ResponseWriter, r *http.Request) {
	ask := httptest.NewRequest(http.MethodHead, "https://"+r.Host+noncePath, nil)
	ask.Header.Set("User-Agent", "acmetest")
	answer := httptest.NewRecorder()
	w.pebble.ServeHTTP(answer, ask)
	out.Header().Set("Replay-Nonce", answer.Header().Get("Replay-Nonce"))
}
