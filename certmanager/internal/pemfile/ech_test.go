package pemfile_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager/internal/pemfile"
	"github.com/ergotls/ergotls/tlstest"
)

func TestECH(t *testing.T) {
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	config := func(list ...byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "ECHCONFIG", Bytes: list}) }
	good := config(0, 10, 0xfe, 0x0d, 0, 1, 7, 0xfe, 0x0d, 0, 1, 8)
	joined := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

	f, err := pemfile.Parse(joined(key, good))
	require.NoError(t, err)
	keys, err := f.ECH()
	require.NoError(t, err)
	require.Len(t, keys, 2)
	assert.Equal(t, []byte{0xfe, 0x0d, 0, 1, 8}, keys[1].Config)
	assert.Equal(t, private.Bytes(), keys[1].PrivateKey)

	for name, c := range map[string]struct {
		data []byte
		says string
	}{
		"no key":         {good, "no private key before it"},
		"config first":   {joined(good, key), "no private key before it"},
		"no config":      {key, "it holds no ECHCONFIG, but a private key"},
		"another key":    {joined(tlstest.NewCA(t).Issue(t, tlstest.Leaf{}).KeyPEM, good), "X25519"},
		"encrypted key":  {joined(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der}), good), "encrypted"},
		"short":          {joined(key, config(0, 10, 0xfe, 0x0d, 0, 1, 7)), "malformed"},
		"empty":          {joined(key, config()), "malformed"},
		"short config":   {joined(key, config(0, 3, 1, 1, 1)), "malformed"},
		"beyond the end": {joined(key, config(0, 5, 1, 1, 0, 9, 0)), "malformed"},
	} {
		f, err := pemfile.Parse(c.data)
		require.NoError(t, err, name)
		_, err = f.ECH()
		assert.ErrorContains(t, err, c.says, name)
	}
}
