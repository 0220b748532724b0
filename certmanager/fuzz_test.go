package certmanager

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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
	m := managerOf(f, pair)
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

func TestTicketEntries(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := managerOf(t, ca.Issue(t, tlstest.Leaf{}))
	r := &resumption{m: m, snapshot: m.current.Load()}
	session := &tls.SessionState{Extra: [][]byte{{1, 2, 3}, []byte(ticketMark)}}
	_, err := r.wrap(tls.ConnectionState{ServerName: "A.test"}, session)
	require.NoError(t, err)
	require.Len(t, session.Extra, 3, "what others put there stays")
	_, ok := m.accepts(session.Extra, "a.test")
	assert.True(t, ok)
	for name, extra := range map[string][][]byte{
		"none": nil, "short": {session.Extra[2][:20]}, "long": {append(session.Extra[2], 0)},
		"future": {append(append([]byte(ticketMark), 0, 0, 1, 0, 0, 0, 0, 0), session.Extra[2][16:]...)},
	} {
		_, ok := m.accepts(extra, "a.test")
		assert.False(t, ok, name)
	}
	got, err := r.unwrap([]byte("no ticket at all"), tls.ConnectionState{})
	assert.NoError(t, err)
	assert.Nil(t, got)
}

func managerOf(t testing.TB, pair *tlstest.Pair) *Manager {
	t.Helper()
	m, err := New(Options{Source: Static{Certificates: []tls.Certificate{pair.Certificate()}}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}
