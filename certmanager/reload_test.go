package certmanager

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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

func (f *fake) Load(context.Context, *Material) (*Material, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen, f.looks = f.body, append(f.looks, time.Now())
	pair, ok := f.certs[f.body]
	if !ok {
		return nil, errors.New(f.body)
	}
	return &Material{Certificates: []Certificate{{Certificate: pair.Certificate(), Origin: f.body}}}, nil
}

func (f *fake) Watch(context.Context, func(), func(Event)) error { return nil } // it is polled

func TestReloadLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		source := &fake{body: "a", certs: map[string]*tlstest.Pair{
			"a": ca.Issue(t, tlstest.Leaf{}), "b": ca.Issue(t, tlstest.Leaf{}), "c": ca.Issue(t, tlstest.Leaf{}),
			"tomorrow": ca.Issue(t, tlstest.Leaf{NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(100 * time.Hour)}),
		}}
		m := newManager(t, Options{Source: source})
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
		assert.Empty(t, events.at(Rejected), "what passes within a second is none")

		source.set("gone")
		time.Sleep(30 * time.Second)
		assert.True(t, serves("c"))
		assert.Len(t, events.at(Rejected), 1)
		assert.Equal(t, "gone", m.Status().LastError)
		time.Sleep(10 * time.Minute)
		assert.Len(t, events.at(Rejected), 1, "once")
		assert.True(t, m.Status().Drift)

		source.set("tomorrow")
		time.Sleep(time.Minute)
		assert.True(t, serves("c"), "not yet valid")
		time.Sleep(time.Hour)
		assert.True(t, serves("tomorrow"), "tried again without a change")
		assert.False(t, m.Status().Drift)
		assert.Len(t, events.at(Rejected), 2)
	})
}

// A source that never rests is loaded all the same.
func TestRestlessSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pair := tlstest.NewCA(t).Issue(t, tlstest.Leaf{})
		source := &fake{body: "0", certs: map[string]*tlstest.Pair{"0": pair}}
		for i := range 1000 {
			source.certs[strconv.Itoa(i)] = pair
		}
		m := newManager(t, Options{Source: source, PollInterval: time.Second})
		for i := range 1000 {
			source.set(strconv.Itoa(i)) // never the same twice, whenever it is looked at
			time.Sleep(7 * time.Millisecond)
		}
		assert.InDelta(t, 3, m.Status().Generation, 1, "one load each two seconds")
	})
}

// A burst of changes is one load, of the last of them.
func TestBurstIsOneLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		source := &fake{body: "a", certs: map[string]*tlstest.Pair{"a": ca.Issue(t, tlstest.Leaf{}), "b": ca.Issue(t, tlstest.Leaf{}), "c": ca.Issue(t, tlstest.Leaf{})}}
		m := newManager(t, Options{Source: source, PollInterval: 5 * time.Millisecond})
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
		source := &fake{body: "a", certs: map[string]*tlstest.Pair{"a": ca.Issue(t, tlstest.Leaf{})}}
		newManager(t, Options{Source: source, PollInterval: time.Minute})
		for _, body := range []string{"broken", "broken otherwise"} {
			source.set(body)
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
			assert.LessOrEqual(t, gaps[0], 2*settle, body)
			assert.IsIncreasing(t, gaps[1:len(gaps)-1], body) // a poll may come between the last
		}
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

func (n *noticing) Watch(ctx context.Context, changed func(), _ func(Event)) error {
	n.changed = changed
	close(n.running)
	<-ctx.Done()
	close(n.ended)
	return nil
}

func (n *noticing) Load(ctx context.Context, previous *Material) (*Material, error) {
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
		m := newManager(t, Options{PollInterval: time.Hour, Source: Sources{Static{RootCAs: ca.Pool()}, source}})
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
	_, err := New(Options{Source: source})
	require.ErrorContains(t, err, "no account")
	<-source.ended
}

// Polls of many machines that were started together drift apart.
func TestPollJitter(t *testing.T) {
	r := &reloader{m: &Manager{options: Options{PollInterval: 10 * time.Second}}}
	seen := make(map[time.Duration]bool)
	for range 100 {
		d := r.interval()
		assert.InDelta(t, 10, d.Seconds(), 1.001)
		seen[d] = true
	}
	assert.Greater(t, len(seen), 90)
}
