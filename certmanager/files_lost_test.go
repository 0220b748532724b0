package certmanager_test

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// unreadable spoils one PEM block: "number" leaves its name readable, "all" leaves nothing.
func unreadable(t *testing.T, data []byte, how string) []byte {
	t.Helper()
	block, _ := pem.Decode(data)
	require.NotNil(t, block)
	switch how {
	case "number": // a negative serial number, which follows the version
		version := []byte{0x02, 0x01, 0x02}
		block.Bytes[bytes.Index(block.Bytes, version)+len(version)+2] = 0x80
	case "list": // its date, and its issuer in another kind of string
		block.Bytes[bytes.Index(block.Bytes, []byte("tlstest"))-2] = 0x0c
		block.Bytes[bytes.Index(block.Bytes, []byte("Z\x17"))] = 'X'
	case "all":
		block.Bytes = []byte("nonsense")
	}
	return pem.EncodeToMemory(block)
}

// A CA or a revocation list that was in service and cannot be read any more is not lost with a
// warning: the file is refused, and what was in service stays.
func TestUnreadableInService(t *testing.T) {
	one, two, three := tlstest.NewCA(t), tlstest.NewCA(t), tlstest.NewCA(t)
	dir := t.TempDir()
	cas, crls := filepath.Join(dir, "cas.pem"), filepath.Join(dir, "crls.pem")
	write := func(path string, parts ...[]byte) {
		t.Helper()
		require.NoError(t, os.WriteFile(path, bytes.Join(parts, nil), 0o600))
	}
	write(cas, one.PEM(), two.PEM())
	write(crls, one.CRL(t), two.CRL(t))
	m := newLogged(t, certmanager.Files{ClientCAs: cas, CRLs: crls})
	refused := func(path, says string) {
		t.Helper()
		generation := m.Status().Generation
		err := m.Reload(t.Context())
		require.ErrorIs(t, err, certmanager.ErrInvalid)
		assert.ErrorContains(t, err, path+": ")
		assert.ErrorContains(t, err, says)
		assert.Equal(t, generation, m.Status().Generation, "what was in service stays")
	}
	for _, how := range []string{"number", "all"} {
		write(cas, one.PEM(), unreadable(t, two.PEM(), how))
		refused(cas, "one of the CAs that are in service would be lost: certificate 2 of 2")
		write(cas, one.PEM(), two.PEM())
	}
	for _, how := range []string{"list", "all"} {
		write(crls, one.CRL(t), unreadable(t, two.CRL(t), how))
		refused(crls, "one of the revocation lists that are in service would be lost: revocation list 2 of 2")
	}
	write(crls, one.CRL(t), two.CRL(t))

	// A new one that cannot be read takes nothing away, nor does one that is taken out.
	for _, how := range []string{"number", "all"} {
		write(cas, one.PEM(), unreadable(t, three.PEM(), how), two.PEM())
		require.NoError(t, m.Reload(t.Context()), how)
	}
	write(cas, one.PEM(), unreadable(t, three.PEM(), "number"))
	write(crls, one.CRL(t))
	require.NoError(t, m.Reload(t.Context()))
	assert.Len(t, m.Status().ClientCAs, 1)
}
