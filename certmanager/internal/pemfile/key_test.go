package pemfile_test

import (
	"crypto/rand"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager/internal/pemfile"
)

// A key that is much too large is refused at once: to check it takes minutes or hours.
func TestHugeRSAKey(t *testing.T) {
	const bits = 1 << 19
	one := big.NewInt(1)
	factor := func() *big.Int {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(one, bits/2-2))
		require.NoError(t, err)
		return n.Or(n, new(big.Int).Lsh(big.NewInt(3), bits/2-2)).SetBit(n, 0, 1)
	}
	var p, q, d, inverse *big.Int
	for d == nil || inverse == nil {
		p, q = factor(), factor()
		phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
		d, inverse = new(big.Int).ModInverse(big.NewInt(65537), phi), new(big.Int).ModInverse(q, p)
	}
	der, err := asn1.Marshal(struct { // RFC 8017 appendix A.1.2
		Version            int
		N                  *big.Int
		E                  int
		D, P, Q, DP, DQ, I *big.Int
	}{0, new(big.Int).Mul(p, q), 65537, d, p, q, new(big.Int).Mod(d, p.Sub(p, one)), new(big.Int).Mod(d, q.Sub(q, one)), inverse})
	require.NoError(t, err)
	for name, data := range map[string][]byte{
		"PEM": pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: der}),
		"DER": der,
	} {
		began := time.Now()
		file, err := pemfile.Parse(data)
		if err == nil {
			_, err = file.Keys()
		}
		require.Error(t, err, name)
		assert.Less(t, time.Since(began), 3*time.Second, name)
	}
}
