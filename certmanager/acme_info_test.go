package certmanager

import (
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/ergotls/ergotls/tlstest"
)

// The CA says when it is to be asked again, within bounds.
func TestRenewalInfoIsAskedAgain(t *testing.T) {
	var after string
	window := map[string]time.Time{"start": time.Now().Add(time.Hour), "end": time.Now().Add(2 * time.Hour)}
	ca := httptest.NewTLSServer(nil)
	defer ca.Close()
	mux := http.NewServeMux()
	ca.Config.Handler = mux
	mux.HandleFunc("/dir", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"renewalInfo": "`+ca.URL+`/ari"}`) })
	mux.HandleFunc("/ari/{id}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", after)
		json.NewEncoder(w).Encode(map[string]any{"suggestedWindow": window})
	})
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate())
	_, s, n := idleACME(t, func(a *ACME) Source {
		a.Directory, a.Roots = ca.URL+"/dir", roots
		return a
	})
	defer s.http.CloseIdleConnections()
	cert := issueACME(t, tlstest.NewCA(t), time.Now(), time.Now().Add(3*time.Hour))
	s.adopt(n, cert)
	asked := func() time.Duration {
		s.askWhen(t.Context(), n, cert.Leaf)
		return time.Until(n.info.at)
	}
	for value, want := range map[string]time.Duration{
		"7200": 2 * time.Hour, "": 6 * time.Hour, "nonsense": 6 * time.Hour, "1000000": 24 * time.Hour, "1": time.Second,
		time.Now().Add(3 * time.Hour).UTC().Format(http.TimeFormat): 3 * time.Hour,
	} {
		after = value
		assert.InDelta(t, want.Seconds(), asked().Seconds(), 30, value)
		assert.Equal(t, renewalID(cert.Leaf), n.info.id)
	}
	due := s.status()[0].Next
	assert.WithinRange(t, due, window["start"], window["end"])
	window["end"] = window["start"].Add(-time.Second)
	assert.InDelta(t, 6*time.Minute.Seconds(), asked().Seconds(), 30, "a thirtieth of the lifetime after nonsense")
	assert.Equal(t, due, s.status()[0].Next, "which changes nothing")
}
