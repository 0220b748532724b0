package crlfetch_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager/crlfetch"
)

// Of each list one can see its age, when it is due, and the last error.
func TestLists(t *testing.T) {
	w := newWorld(t)
	w.web.put(w.list(1, w.alice, w.bob))
	source := w.source()
	assert.Empty(t, source.Lists())
	require.NoError(t, w.start(source))
	only := func() crlfetch.ListStatus {
		all := source.Lists()
		require.Len(t, all, 1)
		return all[0]
	}
	first := only()
	assert.Equal(t, source.URLs[0], first.URL)
	assert.Equal(t, w.ca.Certificate().Subject.String(), first.Issuer)
	assert.Equal(t, 2, first.Entries)
	assert.True(t, first.ThisUpdate.Before(time.Now()) && first.NextUpdate.After(time.Now()))
	assert.WithinDuration(t, time.Now(), first.Asked, time.Minute)
	require.NoError(t, first.Err)

	w.web.fail(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusBadGateway) })
	w.eventually(func() bool { return only().Err != nil }, "the failure")
	failed := only()
	assert.ErrorContains(t, failed.Err, "502")
	assert.Equal(t, first.ThisUpdate, failed.ThisUpdate, "the last good one")
	assert.True(t, failed.Asked.After(first.Asked))
	w.web.put(w.list(2))
	w.eventually(func() bool { return only().Entries == 0 && only().Err == nil }, "the next")
	require.NoError(t, w.Close())
	only()

	// One that is read from Dir was not asked for.
	source = w.source()
	source.MinInterval, source.MaxInterval = time.Hour, 2*time.Hour
	require.NoError(t, w.start(source))
	fromDir := only()
	assert.Zero(t, fromDir.Asked)
	assert.NoError(t, fromDir.Err)
	assert.NotEmpty(t, fromDir.Issuer)
}
