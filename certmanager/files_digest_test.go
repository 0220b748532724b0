package certmanager

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every file counts, and where one ends and the next begins.
func TestDigestOfFiles(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	files := Files{
		Cert: path("cert"), Key: path("key"), Dir: path("pairs"), PKCS12: path("p12"), PKCS12Password: path("password"),
		ClientCAs: path("clients"), RootCAs: path("roots"), CRLs: path("crls"), CRLIssuers: path("issuers"), ECHKeys: path("ech"), TicketKeys: path("tickets"),
	}
	require.NoError(t, os.Mkdir(files.Dir, 0o700))
	digests := make(map[string]string)
	note := func(what string) {
		p := newParser(t.Context(), files, nil)
		_, err := p.read()
		require.NoError(t, err)
		sum := fmt.Sprint(p.tag.sums) // in the order of paths
		assert.Empty(t, digests[sum], what)
		digests[sum] = what
	}
	all := append(files.named(), path("pairs/a.crt"), path("pairs/a.key"), path("pairs/b.pem"))
	for _, file := range all {
		require.NoError(t, os.WriteFile(file, []byte("xx"), 0o600))
	}
	note("as it was")
	for _, file := range all {
		require.NoError(t, os.WriteFile(file, []byte("xy"), 0o600))
		note(file)
		require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
		note(file + " shorter")
	}
	require.NoError(t, os.WriteFile(files.Cert, []byte("xx"), 0o600))
	note("a byte from one file to the next")
	require.NoError(t, os.Rename(path("pairs/b.pem"), path("pairs/c.pem")))
	note("another name")
}
