package certmanager_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// fake is a source of which a test says what it holds.
type fake struct {
	mu    sync.Mutex
	body  string
	seen  string // at the last look
	looks []time.Time
	certs map[string]*tlstest.Pair
}

// await lets time pass until the source was looked at as it is.
func (f *fake) await() {
	for {
		f.mu.Lock()
		done := f.seen == f.body
		f.mu.Unlock()
		if done {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (f *fake) set(body string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.body = body
}

func (f *fake) Load(context.Context, *certmanager.Material) (*certmanager.Material, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen, f.looks = f.body, append(f.looks, time.Now())
	pair, ok := f.certs[f.body]
	if !ok {
		return nil, errors.New(f.body)
	}
	return &certmanager.Material{Certificates: []certmanager.Certificate{{Certificate: pair.Certificate(), Origin: f.body}}}, nil
}

func (f *fake) Watch(context.Context, func(), func(certmanager.Event)) error { return nil } // it is polled

func TestReloadLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		source := &fake{body: "a", certs: map[string]*tlstest.Pair{
			"a": ca.Issue(t, tlstest.Leaf{}), "b": ca.Issue(t, tlstest.Leaf{}), "c": ca.Issue(t, tlstest.Leaf{}),
			"tomorrow": ca.Issue(t, tlstest.Leaf{NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(100 * time.Hour)}),
		}}
		m := newManager(t, certmanager.Options{Source: source})
		events := listen(m, time.Hour)
		serves := func(body string) bool {
			return m.GetCertificate().Leaf.Equal(source.certs[body].Leaf)
		}
		source.set("b")
		time.Sleep(12 * time.Second) // one poll with its jitter, and the settling
		assert.True(t, serves("b"), "found by polling")

		source.set("half written")
		source.await()
		time.Sleep(600 * time.Millisecond)
		source.set("c")
		time.Sleep(time.Second)
		assert.True(t, serves("c"), "a failure is looked at again long before the next poll")
		assert.Empty(t, events.at(certmanager.Rejected), "what passes within a second is none")

		source.set("gone")
		time.Sleep(30 * time.Second)
		assert.True(t, serves("c"))
		assert.Len(t, events.at(certmanager.Rejected), 1)
		assert.Equal(t, "gone", m.Status().LastError)
		time.Sleep(10 * time.Minute)
		assert.Len(t, events.at(certmanager.Rejected), 1, "once")
		assert.True(t, m.Status().Drift)

		source.set("tomorrow")
		time.Sleep(time.Minute)
		assert.True(t, serves("c"), "not yet valid")
		time.Sleep(time.Hour)
		assert.True(t, serves("tomorrow"), "tried again without a change")
		assert.False(t, m.Status().Drift)
		assert.Len(t, events.at(certmanager.Rejected), 2)
	})
}

// A source that never rests is loaded all the same.
func TestSourceThatKeepsChanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pair := tlstest.NewCA(t).Issue(t, tlstest.Leaf{})
		source := &fake{body: "0", certs: map[string]*tlstest.Pair{"0": pair}}
		for i := range 1000 {
			source.certs[strconv.Itoa(i)] = pair
		}
		m := newManager(t, certmanager.Options{Source: source, PollInterval: time.Second})
		for i := range 1000 {
			source.set(strconv.Itoa(i)) // never the same twice, whenever it is looked at
			time.Sleep(7 * time.Millisecond)
		}
		assert.InDelta(t, 3, m.Status().Generation, 1, "one load each two seconds")
	})
}

// late is a source whose Load takes long, as from a file system that does not answer.
type late struct {
	certmanager.Static
	takes time.Duration
}

func (s late) Load(ctx context.Context, previous *certmanager.Material) (*certmanager.Material, error) {
	time.Sleep(s.takes)
	return s.Static.Load(ctx, previous)
}

// A program that does not start for lack of its certificates says so.
func TestSlowFirstLoad(t *testing.T) {
	for takes, lines := range map[time.Duration]int{9 * time.Second: 0, time.Minute: 1} {
		synctest.Test(t, func(t *testing.T) {
			static := certmanager.Static{Certificates: []tls.Certificate{tlstest.NewCA(t).Issue(t, tlstest.Leaf{}).Certificate()}}
			log := &logBuffer{}
			newManager(t, certmanager.Options{Source: late{static, takes}, Logger: log.logger()})
			assert.Equal(t, lines, strings.Count(log.String(), "New waits for the first Load of certmanager_test.late, which has taken 10s so far"), log)
		})
	}
}

// A burst of changes is one load, of the last of them.
func TestBurstIsOneLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		source := &fake{body: "a", certs: map[string]*tlstest.Pair{"a": ca.Issue(t, tlstest.Leaf{}), "b": ca.Issue(t, tlstest.Leaf{}), "c": ca.Issue(t, tlstest.Leaf{})}}
		m := newManager(t, certmanager.Options{Source: source, PollInterval: 5 * time.Millisecond})
		for range 15 {
			source.set("b")
			time.Sleep(60 * time.Millisecond)
			source.set("c")
			time.Sleep(60 * time.Millisecond)
		}
		assert.Equal(t, uint64(1), m.Status().Generation)
		time.Sleep(time.Second)
		assert.Equal(t, uint64(2), m.Status().Generation)
		assert.True(t, source.certs["c"].Leaf.Equal(m.GetCertificate().Leaf))
	})
}

// What fails is tried again soon, then ever less often, and soon again when it changes.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		source := newNoticing("a", map[string]*tlstest.Pair{"a": ca.Issue(t, tlstest.Leaf{})})
		newManager(t, certmanager.Options{Source: source, PollInterval: time.Minute})
		for _, body := range []string{"broken", "broken otherwise"} {
			source.set(body)
			source.changed()
			source.await()
			source.mu.Lock()
			source.looks = nil
			source.mu.Unlock()
			time.Sleep(10 * time.Second)
			source.mu.Lock()
			var gaps []time.Duration
			for i := range source.looks[1:] {
				gaps = append(gaps, source.looks[i+1].Sub(source.looks[i]))
			}
			source.mu.Unlock()
			assert.GreaterOrEqual(t, len(gaps), 5, body)
			assert.LessOrEqual(t, len(gaps), 8, body)
			assert.LessOrEqual(t, gaps[0], 200*time.Millisecond, body)
			assert.IsIncreasing(t, gaps[1:len(gaps)-1], body) // a poll may come between the last
		}
	})
}

// An error with another text each time, such as a port or an id, is not another error: it is
// neither reported each time, nor the reason to ask again at once.
func TestErrorsThatVary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &edited{material: certmanager.Material{Certificates: []certmanager.Certificate{{Certificate: tlstest.NewCA(t).Issue(t, tlstest.Leaf{}).Certificate()}}}}
		m := newManager(t, certmanager.Options{Source: source})
		source.mu.Lock()
		source.vary = true
		source.loads = 0
		source.mu.Unlock()
		time.Sleep(10 * time.Minute)
		assert.Less(t, source.count(), 150)
		source.mu.Lock()
		source.vary = false
		source.mu.Unlock()
		assert.LessOrEqual(t, m.Status().Rejections, uint64(11), "one a minute")
		time.Sleep(time.Minute)
		assert.False(t, m.Status().Drift)
	})
}

// noticing is a source that says when it changes. Its first Load waits for Watch.
type noticing struct {
	*fake
	running chan struct{}
	ended   chan struct{}
	changed func()
}

func newNoticing(body string, certs map[string]*tlstest.Pair) *noticing {
	return &noticing{fake: &fake{body: body, certs: certs}, running: make(chan struct{}), ended: make(chan struct{})}
}

func (n *noticing) Watch(ctx context.Context, changed func(), _ func(certmanager.Event)) error {
	n.changed = changed
	close(n.running)
	<-ctx.Done()
	close(n.ended)
	return nil
}

func (n *noticing) Load(ctx context.Context, previous *certmanager.Material) (*certmanager.Material, error) {
	<-n.running
	return n.fake.Load(ctx, previous)
}

// A source that says that it changed is not polled for, nor is the failure of its new set
// the end of the old one.
func TestSourceThatNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		certs := map[string]*tlstest.Pair{"a": ca.Issue(t, tlstest.Leaf{}), "b": ca.Issue(t, tlstest.Leaf{}), "c": ca.Issue(t, tlstest.Leaf{})}
		source := newNoticing("a", certs)
		m := newManager(t, certmanager.Options{PollInterval: time.Hour, Source: certmanager.Sources{certmanager.Static{RootCAs: ca.Pool()}, source}})
		become := func(body string) {
			source.set(body)
			source.changed()
			source.changed() // twice is no harm
			time.Sleep(time.Second)
		}
		become("b")
		assert.True(t, certs["b"].Leaf.Equal(m.GetCertificate().Leaf))
		become("the CA is away")
		assert.True(t, certs["b"].Leaf.Equal(m.GetCertificate().Leaf))
		become("c")
		assert.True(t, certs["c"].Leaf.Equal(m.GetCertificate().Leaf))
		assert.Zero(t, m.Status().Rejections)
		require.NoError(t, m.Close())
		<-source.ended
	})
}

// A New that fails leaves nothing running.
func TestNewThatFailsEndsWatch(t *testing.T) {
	source := newNoticing("no account", nil)
	_, err := certmanager.New(certmanager.Options{Source: source})
	require.ErrorContains(t, err, "no account")
	<-source.ended
}

// Polls of many machines that were started together drift apart.
func TestPollJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &fake{body: "a", certs: map[string]*tlstest.Pair{"a": tlstest.NewCA(t).Issue(t, tlstest.Leaf{})}}
		newManager(t, certmanager.Options{Source: source, PollInterval: 10 * time.Second})
		time.Sleep(1000 * time.Second)
		seen := make(map[time.Duration]bool)
		source.mu.Lock()
		defer source.mu.Unlock()
		for i, look := range source.looks[1:] {
			gap := look.Sub(source.looks[i])
			assert.InDelta(t, 10, gap.Seconds(), 1.001)
			seen[gap] = true
		}
		assert.Greater(t, len(seen), 80)
	})
}

// slow is a source one of whose readings can be held up after it has taken what is there.
type slow struct {
	*fake
	hold    chan chan struct{} // the next reading takes one, and waits until it is closed
	holding chan struct{}      // told when it does
}

func newSlow(body string, certs map[string]*tlstest.Pair) *slow {
	return &slow{fake: &fake{body: body, certs: certs}, hold: make(chan chan struct{}, 1), holding: make(chan struct{})}
}

func (s *slow) Load(ctx context.Context, previous *certmanager.Material) (*certmanager.Material, error) {
	got, err := s.fake.Load(ctx, previous)
	select {
	case blocked := <-s.hold:
		s.holding <- struct{}{}
		<-blocked
	default:
	}
	return got, err
}

// What was half written for less than a second is no failure where to read it takes longer.
func TestSlowReadingIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		source := newSlow("a", map[string]*tlstest.Pair{"a": ca.Issue(t, tlstest.Leaf{}), "b": ca.Issue(t, tlstest.Leaf{})})
		m := newManager(t, certmanager.Options{Source: source})
		source.set("half written")
		source.await()
		time.Sleep(200 * time.Millisecond) // it has failed
		blocked := make(chan struct{})
		source.hold <- blocked
		<-source.holding
		source.set("b")
		time.Sleep(2 * time.Second)
		close(blocked)
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
		m := newManager(t, certmanager.Options{Source: source})
		events := collect(m)
		source.set("b")
		source.await() // the next look loads it
		blocked := make(chan struct{})
		source.hold <- blocked
		<-source.holding
		source.set("c")
		done := make(chan error)
		go func() { done <- m.Reload(t.Context()) }()
		synctest.Wait()
		close(blocked)
		require.NoError(t, <-done)
		assert.True(t, source.certs["c"].Leaf.Equal(m.GetCertificate().Leaf))
		time.Sleep(time.Minute)
		assert.True(t, source.certs["c"].Leaf.Equal(m.GetCertificate().Leaf))
		assert.LessOrEqual(t, len(events(certmanager.Loaded)), 2)
	})
}

// A file system that hangs keeps Reload no longer than its context says.
func TestReloadEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		source := newSlow("a", map[string]*tlstest.Pair{"a": ca.Issue(t, tlstest.Leaf{}), "b": ca.Issue(t, tlstest.Leaf{})})
		m := newManager(t, certmanager.Options{Source: source})
		source.set("b")
		blocked := make(chan struct{})
		source.hold <- blocked
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		done := make(chan error)
		go func() { done <- m.Reload(ctx) }()
		<-source.holding
		require.ErrorIs(t, <-done, context.DeadlineExceeded)
		assert.Equal(t, 5*time.Second, time.Since(start))
		close(blocked)
		time.Sleep(200 * time.Millisecond)
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
		m := newManager(t, certmanager.Options{PollInterval: time.Second, Source: certmanager.Sources{first, certmanager.Sources{second}}})
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

		blocked := make(chan struct{})
		second.hold <- blocked
		<-second.holding
		first.set("c")
		first.changed()
		time.Sleep(11 * time.Second)
		serves("c", "y")
		second.set("x")
		time.Sleep(time.Minute)
		serves("c", "y")
		close(blocked)
		time.Sleep(2 * time.Second)
		serves("c", "x")
	})
}

// unwatched is a source of files that is polled.
type unwatched struct{ certmanager.Files }

func (unwatched) Watch(context.Context, func(), func(certmanager.Event)) error { return nil }

// slowStore is a device that takes long to find a key, however long its caller waits.
type slowStore struct {
	mu    sync.Mutex
	takes time.Duration
	keys  []crypto.Signer
}

func (s *slowStore) Signer(_ context.Context, public crypto.PublicKey) (crypto.Signer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	time.Sleep(s.takes)
	for _, key := range s.keys {
		if key.Public().(*ecdsa.PublicKey).Equal(public) {
			return key, nil
		}
	}
	return nil, errors.New("it has no such key")
}

// A change that takes longer to load than a Load may take is put in service all the same.
func TestSlowLoadIsNotInVain(t *testing.T) {
	for name, several := range map[string]func(certmanager.Source) certmanager.Source{
		"alone":        func(s certmanager.Source) certmanager.Source { return s },
		"with another": func(s certmanager.Source) certmanager.Source { return certmanager.Sources{certmanager.Static{}, s} },
	} {
		synctest.Test(t, func(t *testing.T) {
			ca, dir := tlstest.NewCA(t), t.TempDir()
			before, after := ca.Issue(t, tlstest.Leaf{}), ca.Issue(t, tlstest.Leaf{})
			store := &slowStore{keys: []crypto.Signer{before.Key, after.Key}}
			files := unwatched{certmanager.Files{Cert: write(t, dir, "tls.crt", before.CertPEM), KeyStore: store}}
			m := newManager(t, certmanager.Options{Source: several(files)})
			store.mu.Lock()
			store.takes = 15 * time.Second
			store.mu.Unlock()
			write(t, dir, "tls.crt", after.CertPEM)
			time.Sleep(time.Minute)
			assert.True(t, after.Leaf.Equal(m.GetCertificate().Leaf), name)
			require.NoError(t, m.Reload(t.Context()), name)
		})
	}
}

// sluggish is a source of which each Load takes long.
type sluggish struct{ *fake }

func (s sluggish) Load(ctx context.Context, previous *certmanager.Material) (*certmanager.Material, error) {
	got, err := s.fake.Load(ctx, previous)
	time.Sleep(12 * time.Second)
	return got, err
}

// Nor is it where every Load takes longer, changed or not.
func TestEverySlowLoadIsNotInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		source := sluggish{&fake{body: "a", certs: map[string]*tlstest.Pair{"a": ca.Issue(t, tlstest.Leaf{}), "b": ca.Issue(t, tlstest.Leaf{})}}}
		m, err := certmanager.New(certmanager.Options{Source: source, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		source.set("b")
		time.Sleep(time.Minute)
		assert.True(t, source.certs["b"].Leaf.Equal(m.GetCertificate().Leaf))
		assert.True(t, m.Status().Drift, "it is told")
		require.NoError(t, m.Close())
		time.Sleep(time.Minute) // the last Load
	})
}

// torn is a source of files that do not match at the first readings.
type torn struct {
	certmanager.Static
	first int
	reads int
}

func (t *torn) Load(ctx context.Context, previous *certmanager.Material) (*certmanager.Material, error) {
	if t.reads++; t.reads <= t.first {
		return nil, certmanager.ErrMismatch
	}
	return t.Static.Load(ctx, previous)
}

// A program that starts while its certificate is being replaced starts all the same.
func TestStartDuringRotation(t *testing.T) {
	source := leaf(tlstest.NewCA(t).Issue(t, tlstest.Leaf{}))
	newManager(t, certmanager.Options{PollInterval: time.Hour, Source: &torn{Static: source, first: 3}})
	wrong := &torn{Static: source, first: 1000}
	_, err := certmanager.New(certmanager.Options{Source: wrong})
	require.ErrorIs(t, err, certmanager.ErrMismatch)
	assert.Less(t, wrong.reads, 20, "but not for ever")
}
