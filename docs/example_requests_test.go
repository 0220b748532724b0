package docs_test

import (
	"encoding/binary"
	"fmt"
	"log"
	"time"

	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/meta"
)

// resolver is a client of a protocol whose frames begin with an id of four bytes.
type resolver struct {
	act.Actor
	port       uint16
	connection gen.Alias
	last       uint32
	requests   meta.Requests[uint32]
}

func (r *resolver) Init(...any) (err error) {
	frames, err := meta.LengthPrefixed{Width: 2, MaxPayload: 1024}.Split()
	if err != nil {
		return err
	}
	connection, err := meta.CreateTCPConnection(meta.TCPConnectionOptions{
		Host: "127.0.0.1", Port: r.port, Split: frames, Reconnect: &meta.Reconnect{Keep: true},
	})
	if err != nil {
		return err
	}
	r.connection, err = r.SpawnMeta(connection, gen.MetaOptions{})
	return err
}

// HandleCall sends a request. What the peer answers is the answer to the caller.
func (r *resolver) HandleCall(from gen.PID, ref gen.Ref, request any) (any, error) {
	r.last++
	frame := frameOf(r.last, request.(string))
	if err := r.requests.Send(r, from, ref, r.connection, r.last, frame, 5*time.Second); err != nil {
		return err, nil
	}
	return nil, nil // later
}

func (r *resolver) HandleMessage(_ gen.PID, message any) error {
	switch m := message.(type) {
	case meta.MessageTCP:
		r.requests.Answer(r, binary.BigEndian.Uint32(m.Data), string(m.Data[4:]))
	case meta.MessageRequestTimeout:
		r.requests.Expire(r, m)
	case meta.MessageTCPUnsent:
		r.requests.Answer(r, binary.BigEndian.Uint32(m.Data[2:]), meta.ErrNotConnected)
	case meta.MessageTCPDisconnect:
		if m.Retry.IsZero() { // else requests may wait for the next connection, and those that are lost time out
			r.requests.Fail(r, m.Reason)
		}
	}
	return nil
}

// frameOf is a length, an id and a text.
func frameOf(id uint32, text string) []byte {
	frame := binary.BigEndian.AppendUint16(nil, uint16(4+len(text)))
	return append(binary.BigEndian.AppendUint32(frame, id), text...)
}

// asking is an actor that makes a Call.
type asking struct {
	act.Actor
	to   gen.PID
	done chan struct{}
}

func (a *asking) Init(...any) error { return a.Send(a.PID(), "begin") }

func (a *asking) HandleMessage(gen.PID, any) error {
	defer close(a.done)
	answer, err := a.Call(a.to, "who is there?")
	if err != nil {
		return err
	}
	fmt.Println(answer)
	return gen.TerminateReasonNormal
}

func Example_requests() {
	s, stop := serve(meta.TCPServerOptions{}, echo)
	defer stop()
	node := startNode()
	defer node.Stop()
	to, err := node.Spawn(func() gen.ProcessBehavior { return &resolver{port: s.port()} }, gen.ProcessOptions{})
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan struct{})
	if _, err := node.Spawn(func() gen.ProcessBehavior { return &asking{to: to, done: done} }, gen.ProcessOptions{}); err != nil {
		log.Fatal(err)
	}
	<-done
	// Output:
	// who is there?
}
