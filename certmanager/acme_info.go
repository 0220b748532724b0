package certmanager

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/ergotls/ergotls/internal/clock"
)

// acmeInfo is what the CA said about the renewal of a certificate.
type acmeInfo struct {
	at         time.Time // of the next question
	start, end time.Time
	id         string // names the certificate to a CA that offers such information
}

// askWhen asks the CA when a certificate is to be renewed.
func (s *acmeState) askWhen(ctx context.Context, n *acmeName, leaf *x509.Certificate) {
	lifetime := leaf.NotAfter.Sub(leaf.NotBefore)
	ctx, cancel := context.WithTimeout(ctx, max(min(lifetime/30, 30*time.Second), time.Second))
	defer cancel()
	info, err := s.renewalInfo(ctx, leaf)
	info.at = clock.Now().Add(max(min(info.again, maxRetryAfter), time.Second))
	if err != nil {
		n.info.at = clock.Now().Add(max(min(lifetime/30, time.Hour), time.Second))
		return // our own time stands
	}
	changed := !info.start.Equal(n.info.start) || !info.end.Equal(n.info.end)
	n.info = info.acmeInfo
	s.mu.Lock()
	defer s.mu.Unlock()
	if changed && n.failures == 0 && !info.start.IsZero() {
		window, _ := renewalWindow(lifetime, s.o.RenewBefore)
		n.due = suggestedTime(info.start, info.end, leaf, window, chance())
	}
}

// suggestion is an answer about renewal, and after how long to ask again.
type suggestion struct {
	acmeInfo
	again time.Duration
}

// renewalInfo asks the CA when a certificate is to be renewed (RFC 9773). The answer is
// empty where the CA offers no such information.
func (s *acmeState) renewalInfo(ctx context.Context, leaf *x509.Certificate) (suggestion, error) {
	var directory struct{ RenewalInfo string }
	if _, err := s.getJSON(ctx, s.o.Directory, &directory); err != nil {
		return suggestion{}, err
	}
	id := renewalID(leaf)
	if directory.RenewalInfo == "" || id == "" {
		return suggestion{again: maxRetryAfter}, nil
	}
	var info struct {
		SuggestedWindow struct{ Start, End time.Time }
	}
	header, err := s.getJSON(ctx, directory.RenewalInfo+"/"+id, &info)
	if err != nil {
		return suggestion{}, err
	}
	start, end := info.SuggestedWindow.Start, info.SuggestedWindow.End
	if !start.Before(end) {
		return suggestion{}, fmt.Errorf("%w: the CA's renewal window ends before it starts", ErrInvalid)
	}
	again := parseRetryAfter(header, clock.Now())
	if again == 0 {
		again = 6 * time.Hour
	}
	return suggestion{acmeInfo{start: start, end: end, id: id}, again}, nil
}

func (s *acmeState) getJSON(ctx context.Context, url string, to any) (http.Header, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "ergotls")
	response, err := s.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	return response.Header, json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(to)
}
