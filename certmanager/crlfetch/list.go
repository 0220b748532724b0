package crlfetch

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/internal/pemfile"
	"github.com/ergotls/ergotls/certmanager/internal/trust"
	"github.com/ergotls/ergotls/internal/dn"
)

// maxClockSkew is how far in the future ThisUpdate may be.
const maxClockSkew = 5 * time.Minute

// list is a revocation list at one address. Its goroutine is run, started by Watch.
type list struct {
	s       *Source
	url     string
	name    string        // url without its password
	fetched chan struct{} // closed after the first request, or once a list was read from Dir
	once    sync.Once     // closes it

	etag, modified string // used by run: of the last response with a list
	failures       int    // used by run: consecutive failures
	unsaved        bool   // used by run: crl is not in Dir yet

	mu    sync.Mutex // guards all below
	crl   *x509.RevocationList
	err   error     // of the last request; nil if it succeeded
	asked time.Time // when the last request ended
}

func newList(s *Source, url string, issuers []*x509.Certificate) *list {
	l := &list{s: s, url: url, name: redacted(url), fetched: make(chan struct{}), err: errors.New("it was not fetched")}
	if s.Dir == "" {
		return l
	}
	crl, err := l.read(issuers)
	switch {
	case err == nil:
		l.crl, l.err = crl, nil
		l.once.Do(func() { close(l.fetched) })
	case !errors.Is(err, fs.ErrNotExist):
		l.err = fmt.Errorf("%s: %w", l.path(), err)
	}
	return l
}

func (l *list) get() (*x509.RevocationList, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.crl, l.err
}

// run fetches the list until ctx ends.
func (l *list) run(ctx context.Context) {
	crl, _ := l.get()
	for wanted := crl == nil || due(crl); ; wanted = true {
		if wanted {
			l.fetch(ctx)
		}
		select {
		case <-time.After(l.wait(time.Now())):
		case <-ctx.Done():
			return
		}
	}
}

// due reports whether a list from Dir must be replaced now: it is in the last third of its
// validity.
func due(crl *x509.RevocationList) bool {
	left := time.Until(crl.NextUpdate)
	return crl.NextUpdate.IsZero() || left < crl.NextUpdate.Sub(crl.ThisUpdate)/3
}

// wait returns the time to the next request: a random part of the time until nextUpdate, so that
// machines do not ask at the same time, or after a failure an interval that doubles.
func (l *list) wait(now time.Time) time.Duration {
	least, most := l.s.MinInterval, l.s.MaxInterval
	crl, _ := l.get()
	wait := most
	switch {
	case l.failures > 0:
		wait = least << min(l.failures-1, 20)
		if wait <= 0 { // it overflowed
			wait = most
		}
	case crl != nil && !crl.NextUpdate.IsZero():
		if left := crl.NextUpdate.Sub(now); left < most { // not for the year 9999, which exceeds a Duration
			wait = left/2 + rand.N(max(left/4, 1))
		}
	}
	wait = min(max(wait, least), most)
	return wait + rand.N(wait/10+1)
}

// fetch makes one request and keeps the returned list.
func (l *list) fetch(ctx context.Context) {
	isNew, err := l.ask(ctx)
	if ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	before := l.err
	l.err, l.asked = err, time.Now()
	l.mu.Unlock()
	l.once.Do(func() { close(l.fetched) })
	l.s.mu.Lock()
	changed, report := l.s.changed, l.s.report
	l.s.mu.Unlock()
	if isNew {
		changed()
	}
	if err != nil {
		if l.failures++; l.failures == 1 || before.Error() != err.Error() {
			report(certmanager.Event{Kind: certmanager.Warning, Reason: "source", Err: fmt.Errorf("crlfetch: revocation list of %s: %w", l.name, err)})
		}
		return
	}
	l.failures = 0
}

// ask makes a request and keeps a newer list. It returns a panic, of Client or a parser, as an
// error.
func (l *list) ask(ctx context.Context) (isNew bool, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the request panicked: %.200s", fmt.Sprint(v))
		}
	}()
	data, err := l.request(ctx)
	if err == nil && data != nil {
		isNew, err = l.take(data)
	}
	if err == nil {
		err = l.save()
	}
	return isNew, err
}

// request gets the list; nil if the server says that it has not changed.
func (l *list) request(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, l.s.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url, nil)
	if err != nil {
		return nil, err
	}
	if l.etag != "" {
		r.Header.Set("If-None-Match", l.etag)
	}
	if l.modified != "" {
		r.Header.Set("If-Modified-Since", l.modified)
	}
	response, err := l.s.Client.Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusNotModified && (l.etag != "" || l.modified != ""):
		return nil, nil
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the server answers %s", response.Status)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, l.s.MaxSize+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(data)) > l.s.MaxSize:
		return nil, fmt.Errorf("it has more than %d bytes (MaxSize)", l.s.MaxSize)
	}
	l.etag, l.modified = response.Header.Get("ETag"), response.Header.Get("Last-Modified")
	return data, nil
}

// take keeps a list if it is newer than the last.
func (l *list) take(data []byte) (isNew bool, err error) {
	l.s.mu.Lock()
	issuers := l.s.issuers
	l.s.mu.Unlock()
	crl, err := parse(data, issuers)
	if err == nil {
		isNew, err = l.newer(crl, issuers)
	}
	if err != nil {
		l.etag, l.modified = "", "" // check the list again next time
		return false, err
	}
	if !isNew {
		return false, nil
	}
	l.mu.Lock()
	l.crl = crl
	l.mu.Unlock()
	l.unsaved = l.s.Dir != ""
	return true, nil
}

// newer compares a list with the kept one (RFC 5280 sections 5.1.2.4 and 5.2.3). A list of another
// CA, or of another key while that of the kept list is trusted, must not replace it, because the
// peers that the kept list revokes would then be accepted: anyone on the path can send any list
// that a CA has signed.
func (l *list) newer(crl *x509.RevocationList, issuers []*x509.Certificate) (bool, error) {
	if ahead := time.Until(crl.ThisUpdate); ahead > maxClockSkew {
		return false, fmt.Errorf("it is dated %s in the future: check the clocks of this machine and of the CA", ahead.Round(time.Second))
	}
	old, _ := l.get()
	switch {
	case old == nil:
		return true, nil
	case string(old.Raw) == string(crl.Raw):
		return false, nil
	}
	signer, _ := signerOf(old, issuers)
	switch {
	case signer != nil && crl.CheckSignatureFrom(signer) != nil, !trust.SamePart(old, crl, l.url):
		return false, fmt.Errorf("it is of another CA, or for other certificates, than the one in use, of %.200q; if that is intended, remove the list from Dir and restart", dn.String(old.Issuer))
	case crl.ThisUpdate.Before(old.ThisUpdate), old.Number != nil && crl.Number != nil && crl.Number.Cmp(old.Number) < 0:
		return false, fmt.Errorf("it is older (%s) than the one in use (%s)", crl.ThisUpdate.UTC().Format(time.RFC3339), old.ThisUpdate.UTC().Format(time.RFC3339))
	}
	return true, nil
}

// parse reads a list, DER or PEM, that one of the issuers has signed.
func parse(data []byte, issuers []*x509.Certificate) (*x509.RevocationList, error) {
	file, err := pemfile.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("it is not a revocation list: %w", err)
	}
	lists, err := file.Lists()
	if err != nil {
		return nil, fmt.Errorf("it is not a revocation list: %w", err)
	}
	if n := len(lists.All) + len(lists.Aside); n > 1 {
		return nil, fmt.Errorf("it is %d revocation lists; give each an address of its own", n)
	}
	crl := lists.All[0]
	if err := trust.CheckList(crl); err != nil {
		return nil, err
	}
	if _, err := signerOf(crl, issuers); err != nil {
		return nil, err
	}
	return crl, nil
}

// signerOf returns which of the issuers has signed a list.
func signerOf(crl *x509.RevocationList, issuers []*x509.Certificate) (*x509.Certificate, error) {
	var why error
	for _, issuer := range issuers {
		if !trust.SameName(issuer.RawSubject, crl.RawIssuer) {
			continue
		}
		if why = crl.CheckSignatureFrom(issuer); why == nil {
			return issuer, nil
		}
	}
	if why != nil {
		return nil, fmt.Errorf("its signature is not that of %.200q, or not accepted: %w", dn.String(crl.Issuer), why)
	}
	return nil, fmt.Errorf("its issuer %.200q is not among the CAs of the source", dn.String(crl.Issuer))
}
