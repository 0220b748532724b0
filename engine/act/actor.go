// Package act has the actor: embed [Actor] in a struct, write the callbacks of
// [ActorBehavior] that are needed, and spawn it through a gen.ProcessFactory.
//
//	type greeter struct{ act.Actor }
//
//	func (g *greeter) HandleMessage(from gen.PID, message any) error {
//		g.Log().Info("%v says %v", from, message)
//		return nil
//	}
//
//	node.Spawn(func() gen.ProcessBehavior { return &greeter{} }, gen.ProcessOptions{})
package act

import (
	"errors"
	"fmt"

	"ergo.services/ergo/gen"
	"ergo.services/ergo/internal/mailbox"
)

// ActorBehavior is what a struct with an embedded Actor implements. Actor has a
// default for each callback. The callbacks of one actor never run at the same
// time. An error that one of them returns ends the actor with that reason;
// gen.TerminateReasonNormal is the way to end without being logged as a failure.
type ActorBehavior interface {
	gen.ProcessBehavior

	// Init runs before Spawn returns, on its goroutine. Terminate does not follow
	// where it fails.
	Init(args ...any) error
	HandleMessage(from gen.PID, message any) error
	// HandleCall answers a request. A nil result is no answer: SendResponse can
	// give it later.
	HandleCall(from gen.PID, ref gen.Ref, request any) (any, error)
	// Terminate runs once, as the last callback. It may send but not call.
	Terminate(reason error)

	// With SetSplitHandle(true) these take, in place of HandleMessage and
	// HandleCall, what was sent to the actor's name or to one of its aliases.
	HandleMessageName(name gen.Atom, from gen.PID, message any) error
	HandleMessageAlias(alias gen.Alias, from gen.PID, message any) error
	HandleCallName(name gen.Atom, from gen.PID, ref gen.Ref, request any) (any, error)
	HandleCallAlias(alias gen.Alias, from gen.PID, ref gen.Ref, request any) (any, error)

	// HandleLog and HandleEvent are there for actors that are written for Ergo.
	// This engine delivers neither.
	HandleLog(message gen.MessageLog) error
	HandleEvent(message gen.MessageEvent) error
	// HandleInspect describes the actor, for Process.Inspect.
	HandleInspect(from gen.PID, item ...string) map[string]string
}

// Actor implements gen.ProcessBehavior around the callbacks of the struct that
// embeds it. Its own methods are for those callbacks only.
type Actor struct {
	gen.Process

	behavior ActorBehavior
	engine   engine
	trap     bool
	split    bool
}

// engine is what an actor needs of its process beyond gen.Process.
type engine interface{ Next() *mailbox.Message }

// SetTrapExit turns exits, except a Shutdown from the parent, into messages of
// type gen.MessageExitPID and gen.MessageExitAlias for HandleMessage.
func (a *Actor) SetTrapExit(trap bool) { a.trap = trap }

// TrapExit reports whether exits are trapped.
func (a *Actor) TrapExit() bool { return a.trap }

// SetSplitHandle turns on the callbacks for what was sent to a name or an alias.
func (a *Actor) SetSplitHandle(split bool) { a.split = split }

// SplitHandle reports whether they are on.
func (a *Actor) SplitHandle() bool { return a.split }

// ProcessInit implements gen.ProcessBehavior.
func (a *Actor) ProcessInit(process gen.Process, args ...any) error {
	behavior, ok := process.Behavior().(ActorBehavior)
	if !ok {
		return fmt.Errorf("%T is not an act.ActorBehavior: %w", process.Behavior(), gen.ErrIncorrect)
	}
	engine, ok := process.(engine)
	if !ok {
		return fmt.Errorf("%T is not a process of this engine: %w", process, gen.ErrUnsupported)
	}
	a.Process, a.behavior, a.engine = process, behavior, engine
	return behavior.Init(args...)
}

// ProcessRun implements gen.ProcessBehavior.
func (a *Actor) ProcessRun() error {
	for m := a.engine.Next(); m != nil; m = a.engine.Next() {
		if err := a.handle(m); err != nil {
			return err
		}
	}
	return nil
}

// ProcessTerminate implements gen.ProcessBehavior.
func (a *Actor) ProcessTerminate(reason error) { a.behavior.Terminate(reason) }

func (a *Actor) handle(m *mailbox.Message) (err error) {
	var result any
	switch m.Kind {
	case mailbox.Call:
		result, err = a.call(m)
	case mailbox.Inspect:
		result = a.behavior.HandleInspect(m.From, m.Payload.([]string)...)
	case mailbox.Exit:
		if reason := a.exit(m); reason != nil {
			return reason
		}
		fallthrough
	default:
		return a.message(m)
	}
	if result != nil {
		_ = a.SendResponse(m.From, m.Ref, result) // the caller may have given up
	}
	return err
}

func (a *Actor) message(m *mailbox.Message) error {
	switch {
	case a.split && m.Name != "":
		return a.behavior.HandleMessageName(m.Name, m.From, m.Payload)
	case a.split && m.Alias != (gen.Alias{}):
		return a.behavior.HandleMessageAlias(m.Alias, m.From, m.Payload)
	}
	return a.behavior.HandleMessage(m.From, m.Payload)
}

func (a *Actor) call(m *mailbox.Message) (any, error) {
	switch {
	case a.split && m.Name != "":
		return a.behavior.HandleCallName(m.Name, m.From, m.Ref, m.Payload)
	case a.split && m.Alias != (gen.Alias{}):
		return a.behavior.HandleCallAlias(m.Alias, m.From, m.Ref, m.Payload)
	}
	return a.behavior.HandleCall(m.From, m.Ref, m.Payload)
}

// exit returns the reason to end with, or nil where the exit is a message.
func (a *Actor) exit(m *mailbox.Message) error {
	switch e := m.Payload.(type) {
	case gen.MessageExitPID:
		orderly := e.PID == a.Parent() && errors.Is(e.Reason, gen.TerminateReasonShutdown)
		if !a.trap || orderly {
			return e.Reason
		}
	case gen.MessageExitAlias:
		if !a.trap {
			return e.Reason
		}
	}
	return nil
}

// Init does nothing.
func (a *Actor) Init(args ...any) error { return nil }

// HandleMessage logs that nobody handles the message.
func (a *Actor) HandleMessage(from gen.PID, message any) error {
	a.Log().Warning("unhandled message of type %T from %s", message, from)
	return nil
}

// HandleCall logs that nobody answers the request; the caller times out.
func (a *Actor) HandleCall(from gen.PID, ref gen.Ref, request any) (any, error) {
	a.Log().Warning("unhandled request of type %T from %s", request, from)
	return nil, nil
}

// Terminate does nothing.
func (a *Actor) Terminate(reason error) {}

// HandleMessageName logs that nobody handles the message.
func (a *Actor) HandleMessageName(name gen.Atom, from gen.PID, message any) error {
	a.Log().Warning("unhandled message of type %T from %s to %s", message, from, name)
	return nil
}

// HandleMessageAlias logs that nobody handles the message.
func (a *Actor) HandleMessageAlias(alias gen.Alias, from gen.PID, message any) error {
	a.Log().Warning("unhandled message of type %T from %s to %s", message, from, alias)
	return nil
}

// HandleCallName logs that nobody answers the request; the caller times out.
func (a *Actor) HandleCallName(name gen.Atom, from gen.PID, ref gen.Ref, request any) (any, error) {
	a.Log().Warning("unhandled request of type %T from %s to %s", request, from, name)
	return nil, nil
}

// HandleCallAlias logs that nobody answers the request; the caller times out.
func (a *Actor) HandleCallAlias(alias gen.Alias, from gen.PID, ref gen.Ref, request any) (any, error) {
	a.Log().Warning("unhandled request of type %T from %s to %s", request, from, alias)
	return nil, nil
}

// HandleLog does nothing.
func (a *Actor) HandleLog(message gen.MessageLog) error { return nil }

// HandleEvent does nothing.
func (a *Actor) HandleEvent(message gen.MessageEvent) error { return nil }

// HandleInspect shows nothing.
func (a *Actor) HandleInspect(from gen.PID, item ...string) map[string]string { return nil }
