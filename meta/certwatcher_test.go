package meta_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// watch spawns a watcher that was made for the actor.
func (a *actor) watch(watcher gen.MetaBehavior, err error) (id gen.Alias) {
	a.h.t.Helper()
	require.NoError(a.h.t, err)
	a.do(func(o *owner) { id, err = o.SpawnMeta(watcher, gen.MetaOptions{}) })
	require.NoError(a.h.t, err)
	return id
}

func (a *actor) call(id gen.Alias, request any) (result any) {
	a.h.t.Helper()
	var err error
	a.do(func(o *owner) { result, err = o.CallAlias(id, request, 5) })
	require.NoError(a.h.t, err)
	return result
}

// An actor hears of what happens to its certificates, and can ask.
func TestCertWatcher(t *testing.T) {
	p := newPKI(t, true)
	a := newHost(t).spawn(nil)
	id := a.watch(meta.CreateCertWatcher(p.manager, meta.CertWatcherOptions{}))
	before := a.call(id, meta.MessageCertStatus{}).(certmanager.Status)
	assert.EqualValues(t, 1, before.Generation)

	// A new certificate, by hand.
	tlstest.NewCA(t).Issue(t, tlstest.Leaf{CommonName: "second"}).Files(t, p.dir, "server")
	after := a.call(id, meta.MessageCertReload{}).(certmanager.Status)
	assert.Greater(t, after.Generation, before.Generation)
	for {
		event := expect[meta.MessageCertEvent](a)
		assert.Equal(t, id, event.ID)
		if event.Event.(certmanager.Event).Kind == certmanager.Loaded {
			break
		}
	}

	// A broken one: the error is the result, and the event says it too.
	require.NoError(t, os.WriteFile(p.file("server.crt"), []byte("nonsense"), 0o644))
	result := a.call(id, meta.MessageCertReload{})
	require.Implements(t, (*error)(nil), result)
	assert.ErrorContains(t, result.(error), "server.crt")
	assert.Equal(t, gen.ErrUnsupported, a.call(id, "nonsense"))
	for expect[meta.MessageCertEvent](a).Event.(certmanager.Event).Kind != certmanager.Rejected {
	}

	// A watcher whose actor has ended ends too; the manager stays.
	a.do(func(o *owner) { o.Node().Kill(o.PID()) })
	b := a.h.spawn(nil)
	eventually(t, func() bool {
		gone := false
		b.do(func(o *owner) { _, err := o.InspectMeta(id); gone = err != nil })
		return gone
	}, "it ends with its parent")
	assert.Equal(t, after.Generation, b.call(b.watch(meta.CreateCertWatcher(p.manager, meta.CertWatcherOptions{})), meta.MessageCertStatus{}).(certmanager.Status).Generation)
}

func TestCertWatcherEndsWithItsReceiver(t *testing.T) {
	p := newPKI(t, false)
	a := newHost(t).spawn(nil)
	watcher, err := meta.CreateCertWatcher(p.manager, meta.CertWatcherOptions{Process: "nobody"})
	require.NoError(t, err)
	var id gen.Alias
	a.do(func(o *owner) { id, err = o.SpawnMeta(watcher, gen.MetaOptions{}) })
	require.NoError(t, err)
	a.call(id, meta.MessageCertStatus{})
	tlstest.NewCA(t).Issue(t, tlstest.Leaf{}).Files(t, p.dir, "server")
	require.NoError(t, p.manager.Reload(t.Context()))
	eventually(t, func() bool { return a.inspectAny(id) == nil }, "it ends")
	eventually(t, a.h.log.contains("nobody"), "it is said why")
}

// What changes after the answer of a watcher that has just been made is an event.
func TestCertWatcherStatusThenEvents(t *testing.T) {
	p := newPKI(t, false)
	a := newHost(t).spawn(nil)
	for range 200 {
		id := a.watch(meta.CreateCertWatcher(p.manager, meta.CertWatcherOptions{}))
		a.call(id, meta.MessageCertStatus{})
		p.manager.Update(tls.Certificate{})
		for expect[meta.MessageCertEvent](a).ID != id {
		}
	}
}

// An actor that is busy misses events, but not those that come later.
func TestCertWatcherOfABusyActor(t *testing.T) {
	p := newPKI(t, false)
	reached, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	open := sync.OnceFunc(func() { close(gate) })
	a := newHost(t).spawn(func(_ *owner, message any) bool {
		if _, ok := message.(meta.MessageCertEvent); ok {
			once.Do(func() { close(reached); <-gate })
		}
		return false
	}, gen.ProcessOptions{MailboxSize: 1})
	t.Cleanup(open) // before the node waits for its actors
	id := a.watch(meta.CreateCertWatcher(p.manager, meta.CertWatcherOptions{}))
	a.call(id, meta.MessageCertStatus{}) // it watches
	p.manager.Update(tls.Certificate{})
	<-reached
	for range 7 { // of which one, or so, waits in the mailbox
		p.manager.Update(tls.Certificate{})
	}
	b := a.h.spawn(nil)
	sent, dropped := 0, 0
	eventually(t, func() bool {
		counts := b.inspect(id)
		sent, _ = strconv.Atoi(counts["events"])
		dropped, _ = strconv.Atoi(counts["dropped"])
		return sent+dropped == 8
	}, "each is sent or counted")
	require.Greater(t, dropped, 3)
	open()
	for range sent {
		expect[meta.MessageCertEvent](a)
	}
	p.manager.Update(tls.Certificate{})
	expect[meta.MessageCertEvent](a)
}

func TestCertWatcherOptions(t *testing.T) {
	_, err := meta.CreateCertWatcher((*certmanager.Manager)(nil), meta.CertWatcherOptions{})
	assert.ErrorIs(t, err, meta.ErrOption)
	for _, m := range []gen.CertManager{nil, manager{}} {
		_, err = meta.CreateACMEResponder(meta.ACMEResponderOptions{CertManager: m})
		assert.ErrorIs(t, err, meta.ErrOption)
	}
}

// watched is a manager that tells when it is no longer watched.
type watched struct {
	manager
	ended chan struct{}
}

func (w watched) Subscribe(func(error)) (cancel func()) { return func() { close(w.ended) } }

func (w watched) Status() string { return "fine" }

// Reload hangs, as a file system may.
func (w watched) Reload(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// What a watcher has asked of the manager ends with it, and a manager that hangs keeps its caller
// no longer than was asked.
func TestCertWatcherOfAnotherManager(t *testing.T) {
	m := watched{ended: make(chan struct{})}
	a := newHost(t).spawn(nil)
	id := a.watch(meta.CreateCertWatcher(m, meta.CertWatcherOptions{}))
	assert.Equal(t, "fine", a.call(id, meta.MessageCertStatus{}))
	assert.Equal(t, context.DeadlineExceeded, a.call(id, meta.MessageCertReload{Timeout: time.Millisecond}))
	a.do(func(o *owner) { assert.NoError(t, o.SendExitMeta(id, gen.TerminateReasonNormal)) })
	select {
	case <-m.ended:
	case <-time.After(testTimeout):
		t.Fatal("it is still watched")
	}
}

// The end of an unstarted watcher is none of its manager's business.
func TestCertWatcherNeverSpawned(t *testing.T) {
	watcher, err := meta.CreateCertWatcher(newPKI(t, false).manager, meta.CertWatcherOptions{})
	require.NoError(t, err)
	watcher.Terminate(errors.New("not wanted"))
	watcher.Terminate(errors.New("twice"))
}

func TestACMEResponder(t *testing.T) {
	p := newPKI(t, false)
	a := newHost(t).spawn(nil)
	free := needs.Port(t)
	responder, err := meta.CreateACMEResponder(meta.ACMEResponderOptions{Host: "127.0.0.1", Port: free, CertManager: p.manager})
	require.NoError(t, err)
	var id gen.Alias
	a.do(func(o *owner) { id, err = o.SpawnMeta(responder, gen.MetaOptions{}) })
	require.NoError(t, err)
	addr := a.inspect(id)["listen"]
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Get("http://" + addr + "/page?x=1")
	require.NoError(t, err)
	response.Body.Close()
	assert.Equal(t, http.StatusFound, response.StatusCode)
	assert.Equal(t, "https://127.0.0.1/page?x=1", response.Header.Get("Location"))
	response, err = client.Get("http://" + addr + "/.well-known/acme-challenge/unknown")
	require.NoError(t, err)
	response.Body.Close()
	assert.Equal(t, http.StatusNotFound, response.StatusCode)
	a.do(func(o *owner) { assert.NoError(t, o.SendExitMeta(id, gen.TerminateReasonNormal)) })
	eventually(t, func() bool {
		again, err := meta.CreateACMEResponder(meta.ACMEResponderOptions{Host: "127.0.0.1", Port: free, CertManager: p.manager})
		if err == nil {
			again.Terminate(nil)
			again.Terminate(nil)
		}
		return err == nil
	}, "the port is free again")
}

// The handshake of a CA that validates a name reaches no actor and is no failure.
func TestACMEChallengeReachesNobody(t *testing.T) {
	ca := tlstest.NewCA(t)
	server := ca.ServerConfig(t)
	server.NextProtos = []string{"acme-tls/1"}
	a := newHost(t).spawn(nil)
	id, addr := a.listen(meta.TCPServerOptions{CertManager: manager{server: server}})
	secure := tls.Client(dialTCP(t, addr), &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", NextProtos: []string{"acme-tls/1"}})
	require.NoError(t, secure.Handshake())
	_, err := secure.Read(make([]byte, 1))
	assert.ErrorContains(t, err, "EOF")
	eventually(t, func() bool { return a.inspect(id)["acme challenges"] == "1" }, "it is counted")
	assert.Equal(t, "0", a.inspect(id)["handshake failures"])
	a.quiet()
}
