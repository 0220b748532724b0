package acmetest_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/tlstest/acmetest"
)

func get(t *testing.T, ca *acmetest.Server, url string, to any) *http.Response {
	t.Helper()
	response, err := ca.HTTPClient().Get(url)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(body, to), "%s", body)
	return response
}

func TestRenewalInfo(t *testing.T) {
	ca := acmetest.Start(t)
	var directory struct{ RenewalInfo string }
	get(t, ca, ca.Directory(), &directory)
	assert.Empty(t, directory.RenewalInfo, "none offered by default")

	leaf, _, err := newClient(t, ca).register(t).obtain(t.Context(), "http-01", "a.example.test")
	require.NoError(t, err)
	start := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	ca.SetRenewalInfo(start, start.Add(time.Minute), 3*time.Second)
	get(t, ca, ca.Directory(), &directory)
	require.NotEmpty(t, directory.RenewalInfo)

	id := base64.RawURLEncoding.EncodeToString(leaf.AuthorityKeyId) + "." + base64.RawURLEncoding.EncodeToString(leaf.SerialNumber.Bytes())
	var info struct {
		SuggestedWindow struct{ Start, End time.Time }
	}
	response := get(t, ca, directory.RenewalInfo+"/"+id, &info)
	assert.Equal(t, start, info.SuggestedWindow.Start)
	assert.Equal(t, start.Add(time.Minute), info.SuggestedWindow.End)
	assert.Equal(t, "3", response.Header.Get("Retry-After"))

	var problem struct{ Type string }
	response = get(t, ca, directory.RenewalInfo+"/wrong", &problem)
	assert.GreaterOrEqual(t, response.StatusCode, 400)
}
