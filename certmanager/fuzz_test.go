package certmanager

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest"
)

// FuzzParse: whatever is in a file, parsing it ends with a value or with an error that
// names the file and quotes none of it.
func FuzzParse(f *testing.F) {
	needs.Corpus(f)
	ca, err := tlstest.GenerateCA()
	if err != nil {
		f.Fatal(err)
	}
	pair, err := ca.Generate(tlstest.Leaf{})
	if err != nil {
		f.Fatal(err)
	}
	crl, err := ca.GenerateCRL(tlstest.CRL{})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{pair.CertPEM, pair.KeyPEM, ca.PEM(), crl, pair.CertPEM[:100], append(pair.KeyPEM, pair.CertPEM...), nil,
		pem.EncodeToMemory(&pem.Block{Type: "ECHCONFIG", Bytes: []byte{0, 5, 0xfe, 0x0d, 0, 1, 1}}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Headers: map[string]string{"DEK-Info": "AES"}, Bytes: []byte{1}}),
	} {
		f.Add(seed)
	}
	for _, seed := range [][]byte{pair.CertPEM, pair.KeyPEM, crl} { // the same without the PEM, which mutations only break
		block, _ := pem.Decode(seed)
		f.Add(block.Bytes)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		parseAll(t, data)
		for _, kind := range []string{"CERTIFICATE", "X509 CRL", "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "ECHCONFIG"} {
			parseAll(t, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}))
		}
	})
}

// parseAll parses data as everything that a file can be.
func parseAll(t *testing.T, data []byte) {
	check := func(n int, err error) {
		switch {
		case err == nil && n == 0:
			t.Error("nothing, and no error")
		case err != nil && !strings.HasPrefix(err.Error(), "the/file: "):
			t.Errorf("%v does not begin with the file", err)
		}
	}
	certs, err := parseBundle(data, "the/file")
	check(len(certs), err)
	lists, err := parseCRLs(data, "the/file")
	check(len(lists), err)
	keys, err := parseECH(data, "the/file")
	check(len(keys), err)
	blocks, err := decodePEM(data, "the/file")
	check(len(blocks), err)
	if key, err := parseKey(blocks, "the/file"); key == nil {
		check(0, err)
	}
}

// FuzzTicket: a client may send any bytes as a ticket, and what a ticket says is believed only where this
// manager, or one that shares its keys, has written it for the same name, under the same trust, not long ago.
func FuzzTicket(f *testing.F) {
	needs.Corpus(f)
	ca, err := tlstest.GenerateCA()
	if err != nil {
		f.Fatal(err)
	}
	pair, err := ca.Generate(tlstest.Leaf{})
	if err != nil {
		f.Fatal(err)
	}
	m := newManager(f, Options{Source: leaf(pair)})
	r := &resumption{m: m, snapshot: m.current.Load()}
	state := tls.ConnectionState{ServerName: "localhost"}
	session := new(tls.SessionState)
	if _, err := r.wrap(state, session); err != nil {
		f.Fatal(err)
	}
	entry := session.Extra[0]
	f.Add(entry, "localhost")
	f.Add(entry, "other")
	f.Add(entry[:len(entry)-1], "localhost")
	f.Add([]byte(ticketMark), "")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		if got, err := r.unwrap(data, state); got != nil || err != nil {
			t.Errorf("%x was taken for a ticket: %v", data, err)
		}
		binding := r.snapshot.trust.binding(name)
		_, ok := m.accepts([][]byte{data}, name)
		if ok && (!bytes.HasPrefix(data, []byte(ticketMark)) || !bytes.HasSuffix(data, binding[:])) {
			t.Errorf("%x was taken for an entry of %q", data, name)
		}
	})
}
