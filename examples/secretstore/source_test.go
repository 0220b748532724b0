package secretstore_test

import (
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/examples/secretstore"
	"github.com/ergotls/ergotls/tlstest"
)

// store is a secret store with one secret.
type store struct {
	mu      sync.Mutex
	version int
	pair    *tlstest.Pair
	sent    atomic.Int32 // how often the secret was
	down    atomic.Bool
}

func (s *store) put(pair *tlstest.Pair) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version, s.pair = s.version+1, pair
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tag := fmt.Sprintf(`"%d"`, s.version)
	w.Header().Set("ETag", tag)
	switch {
	case s.down.Load():
		http.Error(w, "sealed", http.StatusServiceUnavailable)
	case r.Header.Get("If-None-Match") == tag:
		w.WriteHeader(http.StatusNotModified)
	default:
		s.sent.Add(1)
		json.NewEncoder(w).Encode(map[string]string{"certificate": string(s.pair.CertPEM), "key": string(s.pair.KeyPEM)})
	}
}

func Example() {
	ca, err := tlstest.GenerateCA()
	if err != nil {
		log.Fatal(err)
	}
	issue := func(name string) *tlstest.Pair {
		pair, err := ca.Generate(tlstest.Leaf{CommonName: name})
		if err != nil {
			log.Fatal(err)
		}
		return pair
	}
	secrets := &store{}
	secrets.put(issue("first"))
	server := httptest.NewTLSServer(secrets)
	defer server.Close()

	source := secretstore.Source{URL: server.URL + "/v1/tls", Client: server.Client()}
	certs, err := certmanager.New(certmanager.Options{Source: source, PollInterval: 20 * time.Millisecond})
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
	loaded := make(chan certmanager.Event, 1)
	certs.Subscribe(func(e certmanager.Event) {
		if e.Kind == certmanager.Loaded {
			loaded <- e
		}
	})
	fmt.Println(certs.GetCertificate().Leaf.Subject)
	secrets.put(issue("second"))
	fmt.Println((<-loaded).Certificate.Subject)
	// Output:
	// CN=first
	// CN=second
}

// A store that is down takes nothing out of service, and the secret is fetched when it changes, not
// at each poll.
func TestStoreIsDown(t *testing.T) {
	ca := tlstest.NewCA(t)
	secrets := &store{}
	secrets.put(ca.Issue(t, tlstest.Leaf{}))
	server := httptest.NewTLSServer(secrets)
	defer server.Close()
	source := secretstore.Source{URL: server.URL, Client: server.Client()}
	secrets.down.Store(true)
	_, err := certmanager.New(certmanager.Options{Source: source})
	require.ErrorContains(t, err, "503")

	secrets.down.Store(false)
	certs, err := certmanager.New(certmanager.Options{Source: source, PollInterval: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer certs.Close()
	secrets.down.Store(true)
	require.Eventually(t, func() bool { return certs.Status().Drift }, 10*time.Second, time.Millisecond)
	assert.Contains(t, certs.Status().LastError, "503")
	assert.NotEmpty(t, certs.GetCertificate().Certificate)
	secrets.down.Store(false)
	require.Eventually(t, func() bool { return !certs.Status().Drift }, 10*time.Second, time.Millisecond)
	assert.EqualValues(t, 1, secrets.sent.Load())
	assert.Empty(t, certs.Status().Polling, "it is polled by design")
	next := ca.Issue(t, tlstest.Leaf{})
	secrets.put(next)
	require.Eventually(t, func() bool { return certs.GetCertificate().Leaf.Equal(next.Leaf) }, 10*time.Second, time.Millisecond)
}
