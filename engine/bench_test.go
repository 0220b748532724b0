package ergo_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"
)

// The benchmarks count a message as done when it was handled: now and then they
// wait for the last one. BenchmarkChannel is the same stream through a channel
// and a goroutine that lives as long as the benchmark. The one allocation is that
// of the message, which is boxed.

// tick is a message of the size of a meta.MessageTCP.
type tick struct {
	ID   gen.Alias
	Data []byte
}

// last asks for word when everything before it was handled.
type last struct{ done chan<- struct{} }

// sink receives ticks as an actor.
type sink struct {
	act.Actor
	ticks int
}

func (s *sink) HandleMessage(from gen.PID, message any) error {
	switch m := message.(type) {
	case tick:
		s.ticks++
	case last:
		close(m.done)
	}
	return nil
}

func (s *sink) HandleCall(from gen.PID, ref gen.Ref, request any) (any, error) { return request, nil }

// metaSink receives ticks as a meta process.
type metaSink struct {
	gen.MetaProcess
	ticks int
	stop  chan struct{}
}

func newMetaSink() *metaSink { return &metaSink{stop: make(chan struct{})} }

func (s *metaSink) Init(process gen.MetaProcess) error {
	s.MetaProcess = process
	return nil
}

func (s *metaSink) Start() error {
	<-s.stop
	return nil
}

func (s *metaSink) HandleMessage(from gen.PID, message any) error {
	switch m := message.(type) {
	case tick:
		s.ticks++
	case last:
		close(m.done)
	}
	return nil
}

func (s *metaSink) HandleCall(gen.PID, gen.Ref, any) (any, error)      { return nil, nil }
func (s *metaSink) Terminate(error)                                    { close(s.stop) }
func (s *metaSink) HandleInspect(gen.PID, ...string) map[string]string { return nil }

// window is how many messages are on their way at most.
const window = 1024

// stream measures send until all of it was handled.
func stream(b *testing.B, send func(message any) error) {
	await := func() {
		done := make(chan struct{})
		require.NoError(b, send(last{done}))
		<-done
	}
	b.ReportAllocs()
	for n := 1; b.Loop(); n++ {
		if err := send(tick{ID: gen.Alias{Creation: int64(n)}}); err != nil {
			b.Fatal(err)
		}
		if n%window == 0 {
			await()
		}
	}
	await()
}

func BenchmarkSend(b *testing.B) {
	node := startNode(b)
	from, _ := spawn(b, node, &sink{})
	_, to := spawn(b, node, &sink{})
	stream(b, func(message any) error { return from.SendPID(to, message) })
}

func BenchmarkMetaToProcess(b *testing.B) {
	node := startNode(b)
	parent, _ := spawn(b, node, &sink{})
	_, pid := spawn(b, node, &sink{})
	meta := newMetaSink()
	_, err := parent.SpawnMeta(meta, gen.MetaOptions{})
	require.NoError(b, err)
	to := any(pid) // once, as a socket does
	stream(b, func(message any) error { return meta.Send(to, message) })
}

func BenchmarkActorToMeta(b *testing.B) {
	node := startNode(b)
	from, _ := spawn(b, node, &sink{})
	to, err := from.SpawnMeta(newMetaSink(), gen.MetaOptions{})
	require.NoError(b, err)
	stream(b, func(message any) error { return from.SendAlias(to, message) })
}

func BenchmarkChannel(b *testing.B) {
	messages := make(chan any, window)
	s := &sink{}
	go func() {
		for message := range messages {
			_ = s.HandleMessage(gen.PID{}, message)
		}
	}()
	defer close(messages)
	stream(b, func(message any) error {
		messages <- message
		return nil
	})
}

// caller makes calls in its own callback, the only place where it may.
type caller struct {
	act.Actor
	work func(*caller) error
}

func (c *caller) HandleMessage(from gen.PID, message any) error {
	defer close(message.(last).done)
	return c.work(c)
}

func BenchmarkCall(b *testing.B) {
	node := startNode(b)
	_, to := spawn(b, node, &sink{})
	b.ReportAllocs()
	request := any(tick{})
	c := &caller{work: func(c *caller) error {
		for b.Loop() {
			if _, err := c.CallPID(to, request, gen.DefaultRequestTimeout); err != nil {
				b.Error(err)
				return err
			}
		}
		return nil
	}}
	_, pid := spawn(b, node, c)
	done := make(chan struct{})
	require.NoError(b, node.Send(pid, last{done}))
	<-done
}

// deep handles a message with a stack of 4 KiB, as a TLS write needs.
type deep struct {
	act.Actor
	done chan struct{}
}

//go:noinline
func useStack(depth int) byte {
	var frame [1024]byte
	if depth > 1 {
		frame[depth] = useStack(depth - 1)
	}
	return frame[2*depth]
}

func (d *deep) HandleMessage(from gen.PID, message any) error {
	useStack(4)
	d.done <- struct{}{}
	return nil
}

// BenchmarkWake is one message at a time to an actor that sleeps in between. It
// shows what the reuse of goroutines, with their grown stacks, is for.
func BenchmarkWake(b *testing.B) {
	node := startNode(b)
	from, _ := spawn(b, node, &sink{})
	d, to := spawn(b, node, &deep{done: make(chan struct{})})
	message := any(1)
	b.ReportAllocs()
	for b.Loop() {
		if err := from.SendPID(to, message); err != nil {
			b.Fatal(err)
		}
		<-d.done
	}
}
