package certmanager_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pkcs12 "software.sslmate.com/src/go-pkcs12"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// In FIPS 140-only mode packages of the standard library panic at algorithms that are not approved,
// among them those of PKCS #12 files. A file that is put in place does not end the program.
func TestFIPSOnly(t *testing.T) {
	const file = "ERGOTLS_FIPS_FILE"
	if path := os.Getenv(file); path != "" {
		_, err := certmanager.Files{PKCS12: path}.Load(context.Background(), nil)
		require.ErrorIs(t, err, certmanager.ErrInvalid)
		assert.ErrorContains(t, err, path)
		assert.ErrorContains(t, err, "FIPS 140-only mode")
		return
	}
	pair := tlstest.NewCA(t).Issue(t, tlstest.Leaf{})
	for name, encoder := range map[string]*pkcs12.Encoder{"rc2": pkcs12.LegacyRC2, "3des": pkcs12.LegacyDES} {
		data, err := encoder.Encode(pair.Key, pair.Leaf, nil, "")
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), name+".p12")
		require.NoError(t, os.WriteFile(path, data, 0o600))
		inside := exec.Command(os.Args[0], "-test.run=^TestFIPSOnly$", "-test.v")
		inside.Env = append(os.Environ(), file+"="+path, "GODEBUG=fips140=only")
		out, err := inside.CombinedOutput()
		require.NoError(t, err, "%s: %s", name, out)
		assert.Contains(t, string(out), "--- PASS: TestFIPSOnly")
	}
}
