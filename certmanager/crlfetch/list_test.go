package crlfetch

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
)

// Where nothing says when the next list comes, the longest interval is not over at once.
func TestLongestInterval(t *testing.T) {
	s := &Source{Source: certmanager.Static{}, URLs: []string{"http://ca.example.test/list.crl"}, MaxInterval: math.MaxInt64}
	require.NoError(t, s.ready())
	l := newList(s, s.URLs[0], nil)
	for l.failures = range 100 {
		assert.GreaterOrEqual(t, l.wait(time.Now()), s.MinInterval, l.failures)
	}
}
