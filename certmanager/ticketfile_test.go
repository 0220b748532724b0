package certmanager_test

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// Two programs with one file of ticket keys resume each other's sessions, over a rotation too,
// until the key of the session is taken away.
func TestTicketKeysFromAFile(t *testing.T) {
	ca := tlstest.NewCA(t)
	dir := t.TempDir()
	cert, key := ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "server")
	cas, keys := filepath.Join(dir, "cas.pem"), filepath.Join(dir, "tickets")
	require.NoError(t, os.WriteFile(cas, ca.PEM(), 0o600))
	secret := make([][]byte, 3)
	for i := range secret {
		secret[i] = make([]byte, 32)
		rand.Read(secret[i])
	}
	put := func(lines ...string) {
		require.NoError(t, tlstest.WriteFile(keys, []byte(strings.Join(lines, "\n")), 0o600))
	}
	first, second, third := hex.EncodeToString(secret[0]), base64.StdEncoding.EncodeToString(secret[1]), hex.EncodeToString(secret[2])
	put("# made by hand", "", first)
	program := func() *certmanager.Manager {
		m, err := certmanager.New(certmanager.Options{Logger: slog.New(slog.DiscardHandler),
			Source: certmanager.Files{Cert: cert, Key: key, ClientCAs: cas, TicketKeys: keys}})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, m.Close()) })
		return m
	}
	one, other := program(), program()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			put(first)
			reload := func(managers ...*certmanager.Manager) {
				for _, m := range managers {
					require.NoError(t, m.Reload(t.Context()))
				}
			}
			reload(one, other)
			client := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})
			client.MinVersion, client.MaxVersion, client.ClientSessionCache = version, version, tls.NewLRUClientSessionCache(1)
			resumes := func(m *certmanager.Manager) bool {
				state, serverErr, err := meet(t, m.ServerTLS(), client)
				require.NoError(t, serverErr)
				require.NoError(t, err)
				return state.DidResume
			}
			require.False(t, resumes(one))
			assert.True(t, resumes(other), "of the other program")
			put(second, first)
			reload(one) // the other has not seen the change yet
			assert.True(t, resumes(one), "the old key still decrypts")
			reload(other)
			assert.True(t, resumes(other))
			put(third)
			reload(one, other)
			assert.False(t, resumes(one), "its key is gone")
			assert.True(t, resumes(other))
		})
	}
	for text, says := range map[string]string{
		"":                            "it holds no key",
		"# none":                      "it holds no key",
		first + "\n" + first[:40]:     "line 2 is not a key of 32 bytes",
		first + "ff":                  "line 1 is not a key of 32 bytes",
		strings.Repeat("00", 32):      "all zero",
		"-----BEGIN PRIVATE KEY-----": "line 1 is not a key of 32 bytes",
	} {
		put(text)
		err := one.Reload(t.Context())
		require.ErrorContains(t, err, says)
		assert.NotContains(t, err.Error(), first[:20])
	}
}
