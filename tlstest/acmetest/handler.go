package acmetest

import (
	"encoding/base64"
	"encoding/json"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/letsencrypt/pebble/v2/core"
	"github.com/letsencrypt/pebble/v2/wfe"
)

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

// ServeHTTP serves the ACME directory over HTTPS. The server of the CA calls it.
func (w *faults) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	w.requests++
	resume, slow, refuse, after, nonces, renewal := w.resume, w.slow, w.refuse, w.after, w.nonces, w.renewal
	w.mu.Unlock()
	select {
	case <-resume:
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
