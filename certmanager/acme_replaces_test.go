package certmanager

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme"
)

// signedOrder is an order as a CA reads it.
type signedOrder struct {
	Identifiers []struct{ Value string }
	Replaces    string
}

func readOrder(t *testing.T, key crypto.Signer, body []byte) (order signedOrder) {
	t.Helper()
	var jws struct{ Protected, Payload, Signature string }
	require.NoError(t, json.Unmarshal(body, &jws), "%s", body)
	signature, err := base64.RawURLEncoding.DecodeString(jws.Signature)
	require.NoError(t, err)
	digest := sha256.Sum256([]byte(jws.Protected + "." + jws.Payload))
	switch public := key.Public().(type) {
	case *rsa.PublicKey:
		require.NoError(t, rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature))
	case *ecdsa.PublicKey:
		if public.Curve.Params().BitSize == 256 {
			require.Len(t, signature, 64)
			require.True(t, ecdsa.Verify(public, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])))
		}
	}
	payload, err := base64.RawURLEncoding.DecodeString(jws.Payload)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(payload, &order))
	return order
}

// An order says what it replaces, signed with whatever key an account of autocert has; and where the
// CA refuses that, it replaces nothing.
func TestOrderReplaces(t *testing.T) {
	for kind, says := range map[KeyType]bool{ECDSAP256: true, RSA2048: true, ECDSAP384: false} {
		key, err := newACMEKey(kind)
		require.NoError(t, err)
		var orders []signedOrder
		status := http.StatusCreated
		mux := http.NewServeMux()
		ca := httptest.NewServer(mux)
		mux.HandleFunc("/dir", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"newNonce": "%[1]s/nonce", "newAccount": "%[1]s/account", "newOrder": "%[1]s/order"}`, ca.URL)
		})
		mux.HandleFunc("/nonce", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Replay-Nonce", "n") })
		mux.HandleFunc("/order", func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			order := readOrder(t, key, body)
			orders = append(orders, order)
			if order.Replaces == "" {
				w.WriteHeader(http.StatusCreated)
			} else {
				w.WriteHeader(status)
			}
			io.WriteString(w, `{"status": "pending"}`)
		})
		client := &acme.Client{
			Key: key, KID: "account", DirectoryURL: ca.URL + "/dir", RetryBackoff: retryRequest,
			HTTPClient: &http.Client{Transport: replacing{ca.Client().Transport, key}},
		}
		n := newACMEName(acmeTestName, true)
		s := &acmeState{}
		for _, c := range []struct {
			id     string
			status int
			want   []string // in the orders that are made
		}{
			{"", http.StatusCreated, []string{""}},
			{"the.last", http.StatusCreated, []string{"the.last"}},
			{"the.last", http.StatusConflict, []string{"the.last", ""}},
			{"the.last", http.StatusForbidden, []string{"the.last", ""}},
			{"the.last", http.StatusTooManyRequests, []string{"the.last"}}, // a reason to wait, not to do without
		} {
			orders, status, n.info.id = nil, c.status, c.id
			_, err := s.newOrder(t.Context(), client, n)
			if !says {
				require.NoError(t, err)
				assert.Equal(t, []signedOrder{{orders[0].Identifiers, ""}}, orders)
				continue
			}
			assert.Equal(t, c.want[len(c.want)-1] != "" && c.status >= 400, err != nil, "%v: %v", c, err)
			require.Len(t, orders, len(c.want))
			for i, want := range c.want {
				assert.Equal(t, want, orders[i].Replaces)
				assert.Equal(t, acmeTestName, orders[i].Identifiers[0].Value)
			}
		}
		ca.Close()
	}
}
