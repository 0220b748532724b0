package certmanager_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// recorded is everything that managers said during the tests, and every key that they
// held: at the end none of the one may be in the other.
var recorded recorder

type recorder struct {
	mu    sync.Mutex
	texts strings.Builder
	keys  map[string]bool
}

// enoughText bounds what the soak in its full length leaves in memory.
const enoughText = 64 << 20

func (r *recorder) Write(p []byte) (int, error) {
	r.text(string(p))
	return len(p), nil
}

func (r *recorder) logger() slog.Handler { return slog.NewJSONHandler(r, nil) }

func (r *recorder) text(what ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range what {
		if w != nil && r.texts.Len() < enoughText {
			fmt.Fprintf(&r.texts, "%+v\n", w)
		}
	}
}

func (r *recorder) event(e certmanager.Event) {
	b, err := json.Marshal(e)
	r.text(e, string(b), err, e.Err)
}

// manager notes the last words of a manager and the keys that it holds at its end.
func (r *recorder) manager(m *certmanager.Manager) {
	status := m.Status()
	b, err := json.Marshal(status)
	r.text(status, string(b), err, m.ClientAuth())
	keys, secrets := certmanager.XSecrets(m)
	for _, key := range keys {
		r.key(key)
	}
	for _, secret := range secrets {
		r.bytes(secret)
	}
}

func (r *recorder) key(key any) {
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		if raw, err := key.Bytes(); err == nil {
			r.bytes(raw)
		}
	case ed25519.PrivateKey:
		r.bytes(key.Seed())
	case *rsa.PrivateKey:
		for _, prime := range key.Primes {
			r.bytes(prime.Bytes())
		}
	}
	if der, err := x509.MarshalPKCS8PrivateKey(key); err == nil {
		r.bytes(der)
	}
}

// bytes notes the forms in which secret bytes could be printed. The middle of them has
// to do, for base64 at each of its three offsets.
func (r *recorder) bytes(secret []byte) {
	middle := secret[len(secret)/4 : len(secret)*3/4]
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys == nil {
		r.keys = make(map[string]bool)
	}
	r.keys[string(middle)] = true
	r.keys[hex.EncodeToString(middle)] = true
	r.keys[strings.ToUpper(hex.EncodeToString(middle))] = true
	r.keys[strings.Trim(fmt.Sprint(middle), "[]")] = true
	if decimal := new(big.Int).SetBytes(secret).String(); len(decimal) >= 48 { // as fmt prints the numbers of a key
		r.keys[decimal[len(decimal)/4:len(decimal)*3/4]] = true
	}
	for i := range 3 {
		whole := middle[i : i+(len(middle)-i)/3*3]
		r.keys[base64.StdEncoding.EncodeToString(whole)] = true
	}
}

// leaks returns the texts' lines that hold a secret.
func (r *recorder) leaks() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	// By their beginnings, as there may be many of either.
	const window = 12
	beginnings := make(map[string][]string)
	for secret := range r.keys {
		beginnings[secret[:window]] = append(beginnings[secret[:window]], secret)
	}
	var found []string
	texts := r.texts.String()
	for i := 0; i+window <= len(texts); i++ {
		for _, secret := range beginnings[texts[i:i+window]] {
			if strings.HasPrefix(texts[i:], secret) {
				line := texts[strings.LastIndexByte(texts[:i], '\n')+1:]
				line, _, _ = strings.Cut(line, "\n")
				found = append(found, line)
			}
		}
	}
	if i := strings.Index(texts, "PRIVATE KEY-----"); i >= 0 {
		found = append(found, "a PEM key")
	}
	return found
}

// recordedSource notes the keys of every candidate, also of those that are rejected: their errors
// are the likeliest to quote them.
type recordedSource struct{ certmanager.Source }

// recordKeys wraps those of the sources that have keys of their own.
func recordKeys(source certmanager.Source) certmanager.Source {
	switch source := source.(type) {
	case certmanager.Files, certmanager.Static:
		return recordedSource{source}
	case certmanager.Sources:
		var all certmanager.Sources
		for _, s := range source {
			all = append(all, recordKeys(s))
		}
		return all
	}
	return source
}

func (s recordedSource) Load(ctx context.Context, previous *certmanager.Material) (*certmanager.Material, error) {
	if files, ok := s.Source.(certmanager.Files); ok {
		for _, path := range certmanager.XPaths(files) {
			data, _ := os.ReadFile(path)
			recorded.pem(data)
		}
	}
	if static, ok := s.Source.(certmanager.Static); ok {
		for _, cert := range static.Certificates {
			recorded.key(cert.PrivateKey)
		}
	}
	return s.Source.Load(ctx, previous)
}

func (r *recorder) pem(data []byte) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if !strings.Contains(block.Type, "PRIVATE KEY") || len(block.Bytes) < 32 {
			continue
		}
		r.bytes(block.Bytes)
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			r.key(key)
		}
	}
}

func (r *recorder) check() (code int) {
	for _, line := range r.leaks() {
		fmt.Fprintln(os.Stderr, "key material in: "+line)
		code = 1
	}
	return code
}

// The search finds what it is meant to find.
func TestRecorderFindsKeys(t *testing.T) {
	ca := tlstest.NewCA(t)
	for _, kind := range []tlstest.KeyType{tlstest.ECDSAP256, tlstest.RSA2048, tlstest.Ed25519} {
		pair := ca.Issue(t, tlstest.Leaf{Key: kind})
		der, err := x509.MarshalPKCS8PrivateKey(pair.Key)
		require.NoError(t, err)
		for name, text := range map[string]any{
			"PEM": string(pair.KeyPEM), "%x": hex.EncodeToString(der), "%v": fmt.Sprint(der), "raw": string(der), "the key itself": fmt.Sprintf("%+v", pair.Key),
			"base64": base64.StdEncoding.EncodeToString(der), "shifted": base64.StdEncoding.EncodeToString(der[1:]), "shifted more": base64.StdEncoding.EncodeToString(der[2:]),
		} {
			var r recorder
			r.key(pair.Key)
			r.text("harmless", pair.Leaf.Subject, string(pair.CertPEM))
			assert.Empty(t, r.leaks())
			r.text(text)
			assert.NotEmpty(t, r.leaks(), "%d %s", kind, name)
		}
	}
}
