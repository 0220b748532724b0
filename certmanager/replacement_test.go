package certmanager_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// Every replacement is followed soon, without a torn state being served or reported, for files by
// name and for a folder.
func TestEveryReplacement(t *testing.T) {
	for _, replacement := range tlstest.Replacements {
		t.Run(replacement.Name, func(t *testing.T) { t.Parallel(); followReplacement(t, replacement, false) })
		t.Run(replacement.Name+" of a folder", func(t *testing.T) { t.Parallel(); followReplacement(t, replacement, true) })
	}
}

func followReplacement(t *testing.T, replacement tlstest.Replacement, folder bool) {
	ca := tlstest.NewCA(t)
	dir := filepath.Join(t.TempDir(), "tls")
	require.NoError(t, os.Mkdir(dir, 0o700))
	contents := func(pair *tlstest.Pair) map[string][]byte {
		return map[string][]byte{"tls.crt": pair.CertPEM, "tls.key": pair.KeyPEM, "ca.crt": ca.PEM()}
	}
	pair := ca.Issue(t, tlstest.Leaf{})
	require.NoError(t, replacement.Replace(dir, contents(pair), nil))
	files := certmanager.Files{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), ClientCAs: filepath.Join(dir, "ca.crt")}
	if folder {
		files.Cert, files.Key, files.Dir = "", "", dir
	}
	poll := time.Hour // events alone have to do
	if replacement.Silent {
		poll = 50 * time.Millisecond
	}
	m := newManager(t, certmanager.Options{PollInterval: poll, Source: files})
	client := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})
	server := m.ServerTLS()
	serves := func(p *tlstest.Pair) bool {
		return connect(t, server, client).ok(t).client.PeerCertificates[0].Equal(p.Leaf)
	}
	for range 3 {
		next := ca.Issue(t, tlstest.Leaf{})
		start := time.Now()
		require.NoError(t, replacement.Replace(dir, contents(next), func() { require.True(t, serves(pair) || serves(next)) }))
		window := time.Since(start)
		pair = next
		eventually(t, "the new certificate", func() bool { return serves(next) })
		if window < time.Second/2 { // on a machine that is not too busy
			require.Zero(t, m.Status().Rejections, "the window between two files is no failure: %s", m.Status().LastError)
		}
	}
}

// A window between two files that stays open is reported, nothing torn is served, and the
// second file closes it without a poll.
func TestLongMismatch(t *testing.T) {
	ca := tlstest.NewCA(t)
	dir := t.TempDir()
	cert, key := ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "tls")
	m := newManager(t, certmanager.Options{PollInterval: time.Hour, Source: certmanager.Files{Cert: cert, Key: key}})
	events := collect(m)
	before, next := serial(t, m, ca), ca.Issue(t, tlstest.Leaf{})
	require.NoError(t, tlstest.WriteFile(key, next.KeyPEM, 0o600))
	eventually(t, "the report", func() bool { return len(events(certmanager.Rejected)) == 1 })
	assert.ErrorIs(t, events(certmanager.Rejected)[0].Err, certmanager.ErrMismatch)
	assert.Equal(t, before, serial(t, m, ca))
	require.NoError(t, tlstest.WriteFile(cert, next.CertPEM, 0o644))
	eventually(t, "the new pair", func() bool { return serial(t, m, ca) == next.Leaf.SerialNumber.String() })
	assert.Len(t, events(certmanager.Rejected), 1)
}

// A folder that is emptied is no reason to stop serving.
func TestEmptiedFolder(t *testing.T) {
	ca := tlstest.NewCA(t)
	dir := t.TempDir()
	ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "tls")
	m := newManager(t, certmanager.Options{Source: certmanager.Files{Dir: dir, ClientCAs: write(t, t.TempDir(), "ca.crt", ca.PEM())}})
	require.NoError(t, os.Remove(filepath.Join(dir, "tls.crt")))
	require.ErrorIs(t, m.Reload(t.Context()), certmanager.ErrNoCertificate)
	connect(t, m.ServerTLS(), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})).ok(t)

	// Nor to show servers nothing.
	ca.Issue(t, tlstest.Leaf{Usage: tlstest.ClientOnly, CommonName: "client"}).Files(t, dir, "tls")
	client := newManager(t, certmanager.Options{Source: certmanager.Files{Dir: dir, RootCAs: write(t, t.TempDir(), "ca.crt", ca.PEM())}})
	require.NoError(t, os.Remove(filepath.Join(dir, "tls.crt")))
	require.ErrorIs(t, client.Reload(t.Context()), certmanager.ErrNoCertificate)
	connect(t, ca.MutualServerConfig(t), client.ClientTLS("localhost")).ok(t)
}

// Folders that come and go while the files are looked at all the time do not stop the reload loop:
// fsnotify has a lock that its user can run into.
func TestFoldersComeAndGo(t *testing.T) {
	ca := tlstest.NewCA(t)
	dir := filepath.Join(t.TempDir(), "tls")
	require.NoError(t, os.Mkdir(dir, 0o700))
	replace := func(replacement func(string, map[string][]byte, func()) error) *tlstest.Pair {
		pair := ca.Issue(t, tlstest.Leaf{})
		require.NoError(t, replacement(dir, map[string][]byte{"tls.crt": pair.CertPEM, "tls.key": pair.KeyPEM}, nil))
		return pair
	}
	replace(tlstest.RenameOver)
	m := newManager(t, certmanager.Options{PollInterval: time.Millisecond, Source: certmanager.Files{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}})
	for range 300 {
		replace(tlstest.FolderSwapped)
		replace(tlstest.FolderDeleted)
	}
	last := replace(tlstest.FolderSwapped)
	eventually(t, "the last pair", func() bool { return m.GetCertificate().Leaf.Equal(last.Leaf) })
	// A poll each millisecond may see a change before its event, but not the last event.
	eventually(t, "folders that come and go do so with events", func() bool { return m.Status().Polling == "" })
}

// A change that no event told of says so, until there are events again.
func TestChangeWithoutEvent(t *testing.T) {
	ca := tlstest.NewCA(t)
	dir := filepath.Join(t.TempDir(), "tls")
	require.NoError(t, os.Mkdir(dir, 0o700))
	var log logBuffer
	replace := func(replacement func(string, map[string][]byte, func()) error) *tlstest.Pair {
		pair := ca.Issue(t, tlstest.Leaf{})
		require.NoError(t, replacement(dir, map[string][]byte{"tls.crt": pair.CertPEM, "tls.key": pair.KeyPEM}, nil))
		return pair
	}
	replace(tlstest.RenameOver)
	m := newManager(t, certmanager.Options{PollInterval: 20 * time.Millisecond, Logger: log.logger(), Source: certmanager.Files{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}})
	served := func(pair *tlstest.Pair) func() bool {
		return func() bool { return m.GetCertificate().Leaf.Equal(pair.Leaf) }
	}
	eventually(t, "a change with events", served(replace(tlstest.RenameOver)))
	assert.Empty(t, m.Status().Polling)
	for range 3 {
		eventually(t, "a change without", served(replace(tlstest.WithoutEvent)))
		eventually(t, "what the operator sees", func() bool { return m.Status().Polling != "" })
	}
	assert.Contains(t, m.Status().Polling, "without an event")
	assert.Equal(t, 1, strings.Count(log.String(), "reason=polling"))
	eventually(t, "a change with events again", served(replace(tlstest.RenameOver)))
	eventually(t, "what the operator sees", func() bool { return m.Status().Polling == "" })
}
