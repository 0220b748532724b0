package certmanager

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net/http"

	"golang.org/x/crypto/acme"
)

// An order that says which certificate it replaces (RFC 9773 section 5) does not count against
// some of the limits of a CA. Package acme cannot say it, so that its request is signed
// again on the way.

type replacesKey struct{} // of a context: the ID of the certificate that an order replaces

// replacing is the transport of a client with an account.
type replacing struct {
	http.RoundTripper
	account crypto.Signer
}

// RoundTrip implements http.RoundTripper.
func (r replacing) RoundTrip(request *http.Request) (*http.Response, error) {
	id, ok := request.Context().Value(replacesKey{}).(string)
	if !ok || request.Method != http.MethodPost || !isJWSKey(r.account) {
		return r.RoundTripper.RoundTrip(request)
	}
	body, err := io.ReadAll(request.Body)
	request.Body.Close()
	if err != nil {
		return nil, err
	}
	if body, err = addReplaces(body, id, r.account); err != nil {
		return nil, err
	}
	request = request.Clone(request.Context())
	request.ContentLength = int64(len(body))
	request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	request.Body, _ = request.GetBody()
	return r.RoundTripper.RoundTrip(request)
}

// addReplaces adds what is replaced to a signed order. What is no order stays as it is.
func addReplaces(body []byte, id string, account crypto.Signer) ([]byte, error) {
	var signed struct {
		Protected string `json:"protected"`
		Payload   string `json:"payload"`
		Signature string `json:"signature"`
	}
	if err := json.Unmarshal(body, &signed); err != nil {
		return nil, err
	}
	payload, err := base64.RawURLEncoding.DecodeString(signed.Payload)
	if err != nil {
		return nil, err
	}
	var order map[string]any
	if json.Unmarshal(payload, &order) != nil || order["identifiers"] == nil {
		return body, nil
	}
	order["replaces"] = id
	if payload, err = json.Marshal(order); err != nil {
		return nil, err
	}
	signed.Payload = base64.RawURLEncoding.EncodeToString(payload)
	signature, err := signJWS(account, []byte(signed.Protected+"."+signed.Payload))
	if err != nil {
		return nil, err
	}
	signed.Signature = base64.RawURLEncoding.EncodeToString(signature)
	return json.Marshal(signed)
}

// isJWSKey says whether package acme signs with ES256 or RS256, and signJWS therefore can: autocert and
// we make no other account keys.
func isJWSKey(key crypto.Signer) bool {
	switch public := key.Public().(type) {
	case *rsa.PublicKey:
		return true
	case *ecdsa.PublicKey:
		return public.Curve == elliptic.P256()
	}
	return false
}

// signJWS signs as RFC 7518 section 3 says.
func signJWS(key crypto.Signer, message []byte) ([]byte, error) {
	digest := sha256.Sum256(message)
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if _, isRSA := key.Public().(*rsa.PublicKey); err != nil || isRSA {
		return signature, err
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(signature, &rs); err != nil {
		return nil, err
	}
	const size = 32
	return append(rs.R.FillBytes(make([]byte, size)), rs.S.FillBytes(make([]byte, size))...), nil
}

// newOrder makes an order that replaces the last certificate of a name, or where the CA will not have
// that, for example since another machine has replaced it, one that replaces none.
func (s *acmeState) newOrder(ctx context.Context, client *acme.Client, n *acmeName, options ...acme.OrderOption) (*acme.Order, error) {
	id := acme.DomainIDs(n.name)
	if n.info.id == "" {
		return client.AuthorizeOrder(ctx, id, options...)
	}
	order, err := client.AuthorizeOrder(context.WithValue(ctx, replacesKey{}, n.info.id), id, options...)
	var problem *acme.Error
	if !errors.As(err, &problem) || !isInvalid(err) && problem.StatusCode != http.StatusInternalServerError {
		return order, err
	}
	n.info.id = ""
	return client.AuthorizeOrder(ctx, id, options...)
}
