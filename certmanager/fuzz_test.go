package certmanager

import (
	"bytes"
	"crypto/tls"
	"testing"

	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest"
)

// FuzzTicket: a client may send any bytes as a ticket, and what a ticket says is believed only
// where this manager, or one that shares its keys, has written it for the same name, under the same
// trust, not long ago.
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
		binding := r.snapshot.policy.binding(name)
		_, ok := m.accepts([][]byte{data}, name)
		if ok && (!bytes.HasPrefix(data, []byte(ticketMark)) || !bytes.HasSuffix(data, binding[:])) {
			t.Errorf("%x was taken for an entry of %q", data, name)
		}
	})
}
