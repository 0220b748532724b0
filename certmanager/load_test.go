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

func (s *slow) read() (*content, error) {
	got, err := s.fake.read()
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
		time.Sleep(2 * patience)
		close(gate)
		time.Sleep(10 * time.Second)
		assert.True(t, m.GetCertificate().Leaf.Equal(source.certs["b"].Leaf))
		assert.Zero(t, m.Status().Rejections)
	})
}

// The keeper has read b when someone replaces that by c and calls Reload: b, which comes to be
// loaded last, is not put in service, neither then nor for a moment.
func TestStaleReadingIsNotPublished(t *testing.T) {
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
		require.NoError(t, m.Reload(t.Context()))
		close(gate)
		time.Sleep(time.Minute)
		require.Len(t, events(Loaded), 1)
		assert.True(t, source.certs["c"].Leaf.Equal(m.GetCertificate().Leaf))
	})
}

// The other way round: what Reload has read is not what is there any more, so that it reads again.
func TestReloadReadsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		source := newSlow("a", map[string]*tlstest.Pair{"a": ca.Issue(t, tlstest.Leaf{}), "b": ca.Issue(t, tlstest.Leaf{}), "c": ca.Issue(t, tlstest.Leaf{})})
		m := newManager(t, Options{Source: source})
		source.set("b")
		gate := make(chan struct{})
		source.hold <- gate
		done := make(chan error)
		go func() { done <- m.Reload(t.Context()) }()
		<-source.holding
		source.set("c")
		time.Sleep(time.Minute) // the keeper takes it
		close(gate)
		require.NoError(t, <-done)
		assert.True(t, source.certs["c"].Leaf.Equal(m.GetCertificate().Leaf))
		assert.Equal(t, uint64(2), m.Status().Generation)
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
		synctest.Wait()
		assert.True(t, source.certs["b"].Leaf.Equal(m.GetCertificate().Leaf), "what was read is of use all the same")
		require.ErrorIs(t, m.Reload(ctx), context.DeadlineExceeded)
	})
}

// What a source pushes while the keeper reads, having read that source before, stays in service.
func TestPushIsNotTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		certs := map[string]*tlstest.Pair{}
		for _, body := range []string{"a", "b", "x", "y"} {
			certs[body] = ca.Issue(t, tlstest.Leaf{})
		}
		first := &pushing{fake: &fake{body: "a", certs: certs}, running: make(chan struct{}), ended: make(chan struct{})}
		second := newSlow("x", certs)
		m := newManager(t, Options{PollInterval: time.Second, Source: Sources{first, second}})
		events := collect(m)
		second.set("y")
		second.await()
		gate := make(chan struct{})
		second.hold <- gate
		<-second.holding
		first.set("b")
		m.push(first, true)
		close(gate)
		time.Sleep(time.Minute)
		loaded := events(Loaded)
		require.Len(t, loaded, 2, "what was pushed, then the other as well")
		for _, e := range loaded {
			assert.Equal(t, newCertificateInfo(certs["b"].Leaf, "").Serial, e.Certificate.Serial)
		}
		assert.True(t, certs["y"].Leaf.Equal(m.current.Load().certs[1].tls.Leaf))
	})
}

// torn is a source of files that do not match at the first readings.
type torn struct {
	Source
	path  string
	first int
	reads int
}

func (t *torn) paths() []string { return []string{t.path} }

func (t *torn) read() (*content, error) {
	if t.reads++; t.reads <= t.first {
		return nil, ErrMismatch
	}
	return t.Source.read()
}

// A program that starts while its certificate is being replaced starts all the same.
func TestStartDuringRotation(t *testing.T) {
	source := leaf(tlstest.NewCA(t).Issue(t, tlstest.Leaf{}))
	newManager(t, Options{PollInterval: time.Hour, Source: &torn{Source: source, path: t.TempDir(), first: 3}})
	wrong := &torn{Source: source, path: t.TempDir(), first: 1000}
	_, err := New(Options{Source: wrong})
	require.ErrorIs(t, err, ErrMismatch)
	assert.Less(t, wrong.reads, 20, "but not for ever")
}
