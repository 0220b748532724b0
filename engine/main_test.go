package ergo_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// errTest is a reason that only a test can be the cause of.
var errTest = errors.New("test reason")

// startNode starts a node without a log and stops it at the end of the test.
func startNode(t testing.TB) gen.Node {
	t.Helper()
	return startNodeWith(t, gen.NodeOptions{Log: gen.LogOptions{DefaultLogger: gen.DefaultLoggerOptions{Disable: true}}})
}

func startNodeWith(t testing.TB, options gen.NodeOptions) gen.Node {
	t.Helper()
	node, err := ergo.StartNode("test@localhost", options)
	require.NoError(t, err)
	t.Cleanup(node.Stop)
	return node
}

// spawn starts an actor and returns it too, for use from the test.
func spawn[A gen.ProcessBehavior](t testing.TB, node gen.Node, actor A) (A, gen.PID) {
	t.Helper()
	return spawnWith(t, node, actor, gen.ProcessOptions{})
}

func spawnWith[A gen.ProcessBehavior](t testing.TB, node gen.Node, actor A, options gen.ProcessOptions) (A, gen.PID) {
	t.Helper()
	pid, err := node.Spawn(factory(actor), options)
	require.NoError(t, err)
	return actor, pid
}

func factory(behavior gen.ProcessBehavior) gen.ProcessFactory {
	return func() gen.ProcessBehavior { return behavior }
}

// receive waits for a value; a test that waits in vain fails within seconds.
func receive[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(10 * time.Second):
		require.FailNow(t, "nothing arrived within 10 seconds")
		panic("unreachable")
	}
}

// eventually waits for a condition to hold.
func eventually(t testing.TB, holds func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for tick := time.Tick(time.Millisecond); !holds(); {
		select {
		case <-tick:
		case <-deadline:
			require.FailNow(t, "it did not come about within 10 seconds")
		}
	}
}

// envelope is what an actor received, and how.
type envelope struct {
	From    gen.PID
	Name    gen.Atom
	Alias   gen.Alias
	Message any
}

// task is a message that its receiver executes.
type task func() error

// actor is an actor for tests: it keeps what it receives, executes tasks, and
// answers calls with their requests unless told otherwise.
type actor struct {
	act.Actor
	init    func() error
	call    func(from gen.PID, ref gen.Ref, request any) (any, error)
	end     func(reason error)
	inbox   chan envelope
	reasons chan error // of Terminate
}

func newActor() *actor {
	return &actor{inbox: make(chan envelope, 1000), reasons: make(chan error, 10)}
}

func (a *actor) Init(args ...any) error {
	if a.init != nil {
		return a.init()
	}
	return nil
}

func (a *actor) HandleMessage(from gen.PID, message any) error {
	if do, ok := message.(task); ok {
		return do()
	}
	a.inbox <- envelope{From: from, Message: message}
	return nil
}

func (a *actor) HandleMessageName(name gen.Atom, from gen.PID, message any) error {
	a.inbox <- envelope{From: from, Name: name, Message: message}
	return nil
}

func (a *actor) HandleMessageAlias(alias gen.Alias, from gen.PID, message any) error {
	a.inbox <- envelope{From: from, Alias: alias, Message: message}
	return nil
}

func (a *actor) HandleCall(from gen.PID, ref gen.Ref, request any) (any, error) {
	if a.call != nil {
		return a.call(from, ref, request)
	}
	return request, nil
}

func (a *actor) HandleCallName(name gen.Atom, from gen.PID, ref gen.Ref, request any) (any, error) {
	return name, nil
}

func (a *actor) HandleCallAlias(alias gen.Alias, from gen.PID, ref gen.Ref, request any) (any, error) {
	return alias, nil
}

func (a *actor) HandleInspect(from gen.PID, item ...string) map[string]string {
	m := map[string]string{"kind": "actor"}
	for _, i := range item {
		m[i] = "asked"
	}
	return m
}

func (a *actor) Terminate(reason error) {
	if a.end != nil {
		a.end(reason)
	}
	a.reasons <- reason
}

// within executes a function as a callback of the actor and waits for it.
func within(t testing.TB, a *actor, do func()) {
	t.Helper()
	done := make(chan struct{})
	require.NoError(t, a.Node().Send(a.PID(), task(func() error {
		defer close(done)
		do()
		return nil
	})))
	receive(t, done)
}

// gate blocks an actor or meta process in a task until it is opened.
type gate struct {
	entered chan struct{}
	open    func()
	opened  chan struct{}
}

func newGate() *gate {
	g := &gate{entered: make(chan struct{}), opened: make(chan struct{})}
	g.open = sync.OnceFunc(func() { close(g.opened) })
	return g
}

func (g *gate) task() task {
	return func() error {
		close(g.entered)
		<-g.opened
		return nil
	}
}

// hold blocks the target in a callback and returns when it is.
func hold(t testing.TB, node gen.Node, to any) *gate {
	t.Helper()
	g := newGate()
	t.Cleanup(g.open)
	require.NoError(t, node.Send(to, g.task()))
	receive(t, g.entered)
	return g
}

// meta is a meta process for tests. Its Start blocks until Terminate, or returns
// what is sent to it.
type meta struct {
	gen.MetaProcess
	init    func() error
	call    func(from gen.PID, ref gen.Ref, request any) (any, error)
	end     func(reason error)
	starts  chan error
	stopped chan struct{}
	inbox   chan envelope
	reasons chan error   // of Terminate
	busy    atomic.Int32 // callbacks of the message side that are running
	overlap atomic.Bool
}

func newMeta() *meta {
	return &meta{
		starts:  make(chan error, 1),
		stopped: make(chan struct{}),
		inbox:   make(chan envelope, 1000),
		reasons: make(chan error, 10),
	}
}

func (m *meta) Init(process gen.MetaProcess) error {
	m.MetaProcess = process
	if m.init != nil {
		return m.init()
	}
	return nil
}

// alone notes callbacks that should not, but do, run at the same time.
func (m *meta) alone() (leave func()) {
	if m.busy.Add(1) > 1 {
		m.overlap.Store(true)
	}
	return func() { m.busy.Add(-1) }
}

func (m *meta) Start() error {
	select {
	case err := <-m.starts:
		if err == errPanic {
			panic("in Start")
		}
		return err
	case <-m.stopped:
		return nil
	}
}

// errPanic makes Start panic.
var errPanic = errors.New("panic, please")

func (m *meta) HandleMessage(from gen.PID, message any) error {
	defer m.alone()()
	if do, ok := message.(task); ok {
		return do()
	}
	m.inbox <- envelope{From: from, Message: message}
	return nil
}

func (m *meta) HandleCall(from gen.PID, ref gen.Ref, request any) (any, error) {
	defer m.alone()()
	if do, ok := request.(task); ok {
		return nil, do()
	}
	if m.call != nil {
		return m.call(from, ref, request)
	}
	return request, nil
}

func (m *meta) Terminate(reason error) {
	defer m.alone()()
	if m.end != nil {
		m.end(reason)
	}
	if m.busy.Load() == 1 {
		select {
		case <-m.stopped:
		default:
			close(m.stopped)
		}
	}
	m.reasons <- reason
}

func (m *meta) HandleInspect(from gen.PID, item ...string) map[string]string {
	defer m.alone()()
	out := map[string]string{"kind": "meta"}
	for _, i := range item {
		if i == "panic" {
			panic("in HandleInspect")
		}
		out[i] = "asked"
	}
	return out
}
