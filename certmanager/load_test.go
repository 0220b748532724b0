package certmanager

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/tlstest"
)

// slow is a source one of whose readings can be held up after it has taken what is there.
type slow struct {
	*fake
	hold    chan chan struct{} // the next reading takes one, and waits until it is closed
	holding chan struct{}      // told when it does
}

func newSlow(body string, certs map[string]*tlstest.Pair) *slow {
	return &slow{fake: &fake{body: body, certs: certs}, hold: make(chan chan struct{}, 1), holding: make(chan struct{})}
}

func (s *slow) Load(ctx context.Context, previous *Material) (*Material, error) {
	got, err := s.fake.Load(ctx, previous)
	select {
	case gate := <-s.hold:
		s.holding <- struct{}{}
		<-gate
	default:
	}
	return got, err
}

// What was half written for less than a second is no failure where to read it takes longer.
func TestSlowReadingIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		source := newSlow("a", map[string]*tlstest.Pair{"a": ca.Issue(t, tlstest.Leaf{}), "b": ca.Issue(t, tlstest.Leaf{})})
		m := newManager(t, Options{Source: source})
		source.set("half written")
		source.await()
		time.Sleep(2 * settle) // it has failed
		gate := make(chan struct{})
		source.hold <- gate
		<-source.holding
		source.set("b")
		time.Sleep(2 * reportAfter)
		close(gate)
		time.Sleep(10 * time.Second)
		assert.True(t, m.GetCertificate().Leaf.Equal(source.certs["b"].Leaf))
		assert.Zero(t, m.Status().Rejections)
	})
}

// The loop has read b when someone replaces that by c and calls Reload: that reads again.
func TestReloadReadsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		source := newSlow("a", map[string]*tlstest.Pair{"a": ca.Issue(t, tlstest.Leaf{}), "b": ca.Issue(t, tlstest.Leaf{}), "c": ca.Issue(t, tlstest.Leaf{})})
		m := newManager(t, Options{Source: source})
		events := collect(m)
		source.set("b")
		source.await() // the next look loads it
		gate := make(chan struct{})
		source.hold <- gate
		<-source.holding
		source.set("c")
		done := make(chan error)
		go func() { done <- m.Reload(t.Context()) }()
		synctest.Wait()
		close(gate)
		require.NoError(t, <-done)
		assert.True(t, source.certs["c"].Leaf.Equal(m.GetCertificate().Leaf))
		time.Sleep(time.Minute)
		assert.True(t, source.certs["c"].Leaf.Equal(m.GetCertificate().Leaf))
		assert.LessOrEqual(t, len(events(Loaded)), 2)
	})
}

// A file system that hangs keeps Reload no longer than its context says.
func TestReloadEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		source := newSlow("a", map[string]*tlstest.Pair{"a": ca.Issue(t, tlstest.Leaf{}), "b": ca.Issue(t, tlstest.Leaf{})})
		m := newManager(t, Options{Source: source})
		source.set("b")
		gate := make(chan struct{})
		source.hold <- gate
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		done := make(chan error)
		go func() { done <- m.Reload(ctx) }()
		<-source.holding
		require.ErrorIs(t, <-done, context.DeadlineExceeded)
		assert.Equal(t, 5*time.Second, time.Since(start))
		close(gate)
		time.Sleep(2 * settle)
		assert.True(t, source.certs["b"].Leaf.Equal(m.GetCertificate().Leaf), "what was read is of use all the same")
		require.ErrorIs(t, m.Reload(ctx), context.DeadlineExceeded)
	})
}

// A source that hangs, or whose set is rejected, keeps another's renewal from nothing.
func TestSourcesDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		certs := map[string]*tlstest.Pair{
			"expired": ca.Issue(t, tlstest.Leaf{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}),
		}
		for _, body := range []string{"a", "b", "c", "x", "y"} {
			certs[body] = ca.Issue(t, tlstest.Leaf{})
		}
		first, second := newNoticing("a", certs), newSlow("x", certs)
		m := newManager(t, Options{PollInterval: time.Second, Source: Sources{first, Sources{second}}})
		serves := func(one, other string) {
			t.Helper()
			served := m.Status().Certificates
			require.Len(t, served, 2)
			assert.Equal(t, []string{one, other}, []string{served[0].Origin, served[1].Origin})
		}
		second.set("expired")
		time.Sleep(10 * time.Second)
		assert.Equal(t, uint64(1), m.Status().Rejections)
		first.set("b")
		first.changed()
		time.Sleep(time.Second)
		serves("b", "x")
		assert.True(t, m.Status().Drift)

		second.set("y")
		time.Sleep(2 * time.Second)
		serves("b", "y")
		assert.False(t, m.Status().Drift)

		gate := make(chan struct{})
		second.hold <- gate
		<-second.holding
		first.set("c")
		first.changed()
		time.Sleep(loadTimeout + time.Second)
		serves("c", "y")
		second.set("x")
		time.Sleep(time.Minute)
		serves("c", "y")
		close(gate)
		time.Sleep(2 * time.Second)
		serves("c", "x")
	})
}

// torn is a source of files that do not match at the first readings.
type torn struct {
	Static
	first int
	reads int
}

func (t *torn) Load(ctx context.Context, previous *Material) (*Material, error) {
	if t.reads++; t.reads <= t.first {
		return nil, ErrMismatch
	}
	return t.Static.Load(ctx, previous)
}

// A program that starts while its certificate is being replaced starts all the same.
func TestStartDuringRotation(t *testing.T) {
	source := leaf(tlstest.NewCA(t).Issue(t, tlstest.Leaf{}))
	newManager(t, Options{PollInterval: time.Hour, Source: &torn{Static: source, first: 3}})
	wrong := &torn{Static: source, first: 1000}
	_, err := New(Options{Source: wrong})
	require.ErrorIs(t, err, ErrMismatch)
	assert.Less(t, wrong.reads, 20, "but not for ever")
}
