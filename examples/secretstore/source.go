// Package secretstore has a certificate source that reads a secret over HTTP. Use it as a template
// for Vault, a cloud's secret manager or your own service. Start with [Source]. It does not write
// the secret, and does not renew the certificate in it.
package secretstore

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/ergotls/ergotls/certmanager"
)

// Source is a secret with a certificate and its key.
type Source struct {
	URL    string       // answers with {"certificate": "…", "key": "…"}, both PEM, and an ETag
	Client *http.Client // verifies the store and authenticates to it
}

// Load implements certmanager.Source.
func (s Source) Load(ctx context.Context, previous *certmanager.Material) (*certmanager.Material, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	if err != nil {
		return nil, err
	}
	if previous != nil {
		request.Header.Set("If-None-Match", previous.Tag.(string))
	}
	response, err := s.Client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNotModified {
		return previous, nil
	}
	var secret struct{ Certificate, Key string }
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", s.URL, response.Status)
	} else if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&secret); err != nil {
		return nil, fmt.Errorf("%s: %w", s.URL, err)
	}
	pair, err := tls.X509KeyPair([]byte(secret.Certificate), []byte(secret.Key))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.URL, err)
	}
	return &certmanager.Material{
		Certificates: []certmanager.Certificate{{Certificate: pair, Origin: s.URL}},
		Tag:          response.Header.Get("ETag"),
	}, nil
}

// Watch implements certmanager.Source: the store does not tell of changes. The manager asks every
// PollInterval.
func (s Source) Watch(context.Context, func(), func(certmanager.Event)) error { return nil }
