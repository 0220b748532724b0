package acmetest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// jws is what a signed request says, unverified: Pebble verifies it.
type jws struct {
	signed  bool
	kid     string
	payload []byte
}

// readJWS reads the body of a request, and puts it back.
func readJWS(r *http.Request) (jws, error) {
	if r.Method != http.MethodPost {
		return jws{}, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return jws{}, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var wire struct{ Protected, Payload string }
	var header struct{ Kid string }
	if err := json.Unmarshal(body, &wire); err != nil {
		return jws{}, fmt.Errorf("not a JWS: %w", err)
	}
	protected, err := base64.RawURLEncoding.DecodeString(wire.Protected)
	if err == nil {
		err = json.Unmarshal(protected, &header)
	}
	if err != nil {
		return jws{}, fmt.Errorf("protected header of a JWS: %w", err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(wire.Payload)
	return jws{true, header.Kid, payload}, err
}

// order returns the names of a new order, sorted, and the ID of the certificate that it replaces,
// if any.
func (j jws) order() (names []string, replaces string) {
	var order struct {
		Identifiers []struct{ Value string }
		Replaces    string
	}
	json.Unmarshal(j.payload, &order)
	for _, id := range order.Identifiers {
		names = append(names, id.Value)
	}
	slices.Sort(names)
	return names, order.Replaces
}

func setRetryAfter(h http.Header, d time.Duration) {
	if d > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(d.Seconds()))))
	}
}

// problem answers with a problem document, RFC 8555 section 6.7.
func problem(out http.ResponseWriter, status int, kind, detail string) {
	out.Header().Set("Content-Type", "application/problem+json")
	out.WriteHeader(status)
	json.NewEncoder(out).Encode(map[string]any{"type": "urn:ietf:params:acme:error:" + kind, "detail": detail, "status": status})
}

// without takes a field out of a JSON object.
func without(object []byte, field string) []byte {
	var fields map[string]json.RawMessage
	if json.Unmarshal(object, &fields) != nil {
		return object
	}
	delete(fields, field)
	stripped, err := json.Marshal(fields)
	if err != nil {
		return object
	}
	return stripped
}
