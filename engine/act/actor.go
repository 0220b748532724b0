// Package act has the actor: embed [Actor] in a struct, write the callbacks of [ActorBehavior] that
// are needed, and spawn it through a gen.ProcessFactory.
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

// ActorBehavior is what a struct with an embedded Actor implements. Actor has a default for each
// callback. The callbacks of one actor never run at the same time. An error that one of them
// returns ends the actor with that reason; gen.TerminateReasonNormal is not logged as a failure.
type ActorBehavior interface {
	gen.ProcessBehavior

	// Init runs before Spawn returns, on its goroutine. Terminate does not follow where it fails.
	Init(args ...any) error
	HandleMessage(from gen.PID, message any) error
	// HandleCall answers a request. A nil result is no answer: SendResponse can give it later.
	HandleCall(from gen.PID, ref gen.Ref, request any) (any, error)
	// Terminate runs once, as the last callback. It may send but not call.
	Terminate(reason error)

	// With SetSplitHandle(true) these take, in place of HandleMessage and HandleCall, what was
	// sent to the actor's name or to one of its aliases.
	HandleMessageName(name gen.Atom, from gen.PID, message any) error
	HandleMessageAlias(alias gen.Alias, from gen.PID, message any) error
	HandleCallName(name gen.Atom, from gen.PID, ref gen.Ref, request any) (any, error)
	HandleCallAlias(alias gen.Alias, from gen.PID, ref gen.Ref, request any) (any, error)

	// This engine calls neither HandleLog nor HandleEvent.
	HandleLog(message gen.MessageLog) error
	HandleEvent(message gen.MessageEvent) error
	// HandleInspect describes the actor, for Process.Inspect.
	HandleInspect(from gen.PID, item ...string) map[string]string
}

// Actor implements gen.ProcessBehavior around the callbacks of the struct that embeds it. Its own
// methods are for those callbacks only.
type Actor struct {
	gen.Process

	behavior ActorBehavior
	engine   engine
	trap     bool
	split    bool
}

// engine is what an actor needs of its process beyond gen.Process.
type engine interface{ Next() *mailbox.Message }

// SetTrapExit turns exits, except a Shutdown from the parent, into messages of type
// gen.MessageExitPID and gen.MessageExitAlias for HandleMessage.
func (a *Actor) SetTrapExit(trap bool) { a.trap = trap }
func (a *Actor) TrapExit() bool        { return a.trap }

// SetSplitHandle turns on the callbacks for what was sent to a name or an alias.
func (a *Actor) SetSplitHandle(split bool) { a.split = split }
func (a *Actor) SplitHandle() bool         { return a.split }

// ProcessInit implements gen.ProcessBehavior, as the next two methods do.
func (a *Actor) ProcessInit(process gen.Process, args ...any) error {
	behavior, isActor := process.Behavior().(ActorBehavior)
	engine, isEngine := process.(engine)
	if !isActor || !isEngine {
		return fmt.Errorf("%T is not an act.ActorBehavior, or %T no process of this engine: %w",
			process.Behavior(), process, gen.ErrIncorrect)
	}
	a.Process, a.behavior, a.engine = process, behavior, engine
	return behavior.Init(args...)
}

func (a *Actor) ProcessRun() error {
	for m := a.engine.Next(); m != nil; m = a.engine.Next() {
		if err := a.handle(m); err != nil {
			return err
		}
	}
	return nil
}

func (a *Actor) ProcessTerminate(reason error) { a.behavior.Terminate(reason) }

func (a *Actor) handle(m *mailbox.Message) (err error) {
	b := a.behavior
	name, byName := m.To.(gen.Atom)
	alias, byAlias := m.To.(gen.Alias)
	byName, byAlias = a.split && byName, a.split && byAlias
	if reason := a.exit(m.Payload); m.Kind == mailbox.Exit && reason != nil {
		return reason
	}
	var result any
	switch {
	case m.Kind == mailbox.Inspect:
		result = b.HandleInspect(m.From, m.Payload.([]string)...)
	case m.Kind == mailbox.Call && byName:
		result, err = b.HandleCallName(name, m.From, *m.Ref, m.Payload)
	case m.Kind == mailbox.Call && byAlias:
		result, err = b.HandleCallAlias(alias, m.From, *m.Ref, m.Payload)
	case m.Kind == mailbox.Call:
		result, err = b.HandleCall(m.From, *m.Ref, m.Payload)
	case byName:
		return b.HandleMessageName(name, m.From, m.Payload)
	case byAlias:
		return b.HandleMessageAlias(alias, m.From, m.Payload)
	default:
		return b.HandleMessage(m.From, m.Payload)
	}
	if result != nil {
		_ = a.SendResponse(m.From, *m.Ref, result) // the caller may have given up
	}
	return err
}

// exit returns the reason to end with, or nil where the exit is a message.
func (a *Actor) exit(payload any) error {
	switch e := payload.(type) {
	case gen.MessageExitPID:
		if !a.trap || e.PID == a.Parent() && errors.Is(e.Reason, gen.TerminateReasonShutdown) {
			return e.Reason
		}
	case gen.MessageExitAlias:
		if !a.trap {
			return e.Reason
		}
	}
	return nil
}

// The default callbacks do nothing, except that a message or request that nobody handles is logged.

func (a *Actor) Init(args ...any) error                                       { return nil }
func (a *Actor) Terminate(reason error)                                       {}
func (a *Actor) HandleLog(message gen.MessageLog) error                       { return nil }
func (a *Actor) HandleEvent(message gen.MessageEvent) error                   { return nil }
func (a *Actor) HandleInspect(from gen.PID, item ...string) map[string]string { return nil }

func (a *Actor) HandleMessage(from gen.PID, message any) error {
	a.Log().Warning("unhandled message of type %T from %s", message, from)
	return nil
}

func (a *Actor) HandleCall(from gen.PID, ref gen.Ref, request any) (any, error) {
	a.Log().Warning("unhandled request of type %T from %s", request, from)
	return nil, nil
}

func (a *Actor) HandleMessageName(name gen.Atom, from gen.PID, message any) error {
	return a.HandleMessage(from, message)
}

func (a *Actor) HandleMessageAlias(alias gen.Alias, from gen.PID, message any) error {
	return a.HandleMessage(from, message)
}

func (a *Actor) HandleCallName(name gen.Atom, from gen.PID, ref gen.Ref, request any) (any, error) {
	return a.HandleCall(from, ref, request)
}

func (a *Actor) HandleCallAlias(alias gen.Alias, from gen.PID, ref gen.Ref, request any) (any, error) {
	return a.HandleCall(from, ref, request)
}
