package status

import (
	"log/slog"
	"net/url"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// Who depends on a CA is shown, and nobody else, whatever kind of source it comes from.
func TestImpact(t *testing.T) {
	s, p := newPage(t)
	_, err := s.Dial(t, s.CA, tlstest.Leaf{CommonName: "alice"})
	require.NoError(t, err)
	for range 2 {
		_, err := s.Dial(t, s.Other, tlstest.Leaf{CommonName: "carol"})
		require.NoError(t, err)
	}
	ask := func(index int) *impactView {
		choices := p.view("", "", s.CA.Certificate().NotBefore).Choices
		require.Len(t, choices, 2)
		return read(t, p, "/status.json?ca="+url.QueryEscape(choices[index].Value)).Impact
	}
	for _, source := range []certmanager.Source{s.Files, &s.Files, certmanager.Sources{certmanager.Static{}, s.Files, certmanager.Static{}}} {
		p.AddManager("main", s.Manager, source)
		first, second := ask(0), ask(1)
		require.Len(t, first.Peers, 1, first.Error)
		assert.Equal(t, "CN=alice", first.Peers[0].Name)
		require.Len(t, second.Peers, 2, second.Error)
		assert.Equal(t, "CN=carol", second.Peers[0].Name)
		assert.Equal(t, s.Other.Certificate().Subject.String(), second.CA)
	}
	assert.Contains(t, get(p, "/?ca="+url.QueryEscape(p.view("", "", s.CA.Certificate().NotBefore).Choices[1].Value)).Body.String(), "2 open connections of main would be closed")
	assert.Nil(t, read(t, p, "/status.json?ca=nothing+of+the+kind").Impact)
	assert.Equal(t, 3, s.Manager.Status().Connections, "asking closes nothing")

	// What is on disk and not yet in service is not what the question is about.
	require.NoError(t, os.WriteFile(s.Files.ClientCAs, tlstest.NewCA(t).PEM(), 0o600))
	if v := ask(0); v.Error != "" { // the manager may have loaded it meanwhile
		assert.Contains(t, v.Error, "wait for the reload")
	}
	p.AddManager("main", s.Manager, nil)
	assert.NotContains(t, get(p, "/").Body.String(), "If a CA were removed")
}

// A CA of servers can be asked about too, and a file that is gone is said.
func TestImpactOfRoots(t *testing.T) {
	ca := tlstest.NewCA(t)
	path := t.TempDir() + "/roots.crt"
	require.NoError(t, os.WriteFile(path, ca.PEM(), 0o600))
	files := certmanager.Files{RootCAs: path}
	m, err := certmanager.New(certmanager.Options{Source: files, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer m.Close()
	p := New()
	defer p.Close()
	p.AddManager("client", m, files)
	choice := p.view("", "", ca.Certificate().NotBefore).Choices[0].Value
	v := p.view(choice, "", ca.Certificate().NotBefore)
	require.NotNil(t, v.Impact)
	assert.Empty(t, v.Impact.Error)
	assert.Empty(t, v.Impact.Peers)
	assert.Contains(t, get(p, "/?ca="+url.QueryEscape(choice)).Body.String(), "No open connection of client needs")
	require.NoError(t, os.Remove(path))
	assert.Contains(t, p.view(choice, "", ca.Certificate().NotBefore).Impact.Error, "roots.crt")
}

// What the manager reads is read here too: DER, and nothing that is no file.
func TestImpactReadsAsTheManager(t *testing.T) {
	ca := tlstest.NewCA(t)
	path := t.TempDir() + "/roots.der"
	require.NoError(t, os.WriteFile(path, ca.Certificate().Raw, 0o600))
	files := certmanager.Files{RootCAs: path}
	m, err := certmanager.New(certmanager.Options{Source: files, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer m.Close()
	p := New()
	defer p.Close()
	p.AddManager("client", m, files)
	choice := p.view("", "", ca.Certificate().NotBefore).Choices[0].Value
	assert.Empty(t, p.view(choice, "", ca.Certificate().NotBefore).Impact.Error)
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o700))
	assert.Contains(t, p.view(choice, "", ca.Certificate().NotBefore).Impact.Error, "it is a folder")
}
