package node

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"

	"ergo.services/ergo/gen"
	"ergo.services/ergo/internal/mailbox"
)

// unit is what a process and a meta process have in common: a mailbox, and callbacks that one
// goroutine at a time runs.
type unit struct {
	mailbox.Mailbox
	log   log
	state atomic.Int32 // a gen.ProcessState
	sent  atomic.Uint64
	kind  kind

	workers *workers
	next    *unit // guarded by the mutex of workers
}

// kind is the part in which they differ.
type kind interface {
	work() error            // handles messages until there are none
	terminate(reason error) // runs the last callback and forgets the unit
	full(m *mailbox.Message, priority gen.MessagePriority) error
}

func (u *unit) init(k kind, limit int64, n *node, level gen.LogLevel, source logSource) {
	u.kind, u.Limit, u.workers = k, limit, &n.workers
	u.log.init(n, level, source)
}

func (u *unit) Log() gen.Log                { return &u.log }
func (u *unit) setState(s gen.ProcessState) { u.state.Store(int32(s)) }

// push delivers a message and sees to it that it is handled.
func (u *unit) push(m *mailbox.Message, priority gen.MessagePriority, force bool) error {
	wake, err := u.Push(m, priority, force)
	if wake {
		u.workers.run(u)
	}
	return err
}

// end ends the unit unless that has happened before. Its last callback follows on the
// goroutine that handles messages.
func (u *unit) end(reason error) {
	if reason == nil {
		reason = gen.TerminateReasonNormal
	}
	if u.Close(reason) {
		u.workers.run(u)
	}
}

// run handles messages until there are none left or the mailbox was closed.
func (u *unit) run() {
	parked := false
	defer func() {
		if !parked {
			u.Close(gen.TerminateReasonPanic) // of a callback that has called runtime.Goexit
			u.kind.terminate(u.Reason())
		}
	}()
	for !parked && u.Reason() == nil {
		u.setState(gen.ProcessStateRunning)
		if err := u.guard(u.kind.work); err != nil {
			u.Close(err)
		}
		u.setState(gen.ProcessStateSleep)
		parked = u.Park()
	}
}

// guard turns a panic of a callback into a reason. It cannot stop a runtime.Goexit, but logs it.
func (u *unit) guard(callback func() error) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if v := recover(); v != nil {
			u.log.Panic("panic: %v at %s", v, panicPlace())
		} else {
			u.log.Panic("a callback called runtime.Goexit")
		}
		err = gen.TerminateReasonPanic
	}()
	err = callback()
	returned = true
	return err
}

// last runs the last callback. An end that is a failure is logged as one.
func (u *unit) last(reason error, callback func(error)) {
	u.setState(gen.ProcessStateTerminated)
	if errors.Is(reason, gen.TerminateReasonNormal) || errors.Is(reason, gen.TerminateReasonShutdown) {
		u.log.Debug("terminated: %v", reason)
	} else {
		u.log.Error("terminated: %v", reason)
	}
	_ = u.guard(func() error {
		callback(reason)
		return nil
	})
}

// panicPlace finds the line that panicked: the first frame below the runtime's. It is for a
// deferred function that has recovered.
func panicPlace() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for panicking, more := false, true; more; {
		var frame runtime.Frame
		frame, more = frames.Next()
		if panicking && !strings.HasPrefix(frame.Function, "runtime.") {
			return fmt.Sprintf("%s (%s:%d)", frame.Function, frame.File, frame.Line)
		}
		panicking = panicking || frame.Function == "runtime.gopanic"
	}
	return "unknown place"
}

// typeName names the type behind a process or meta process, as in main.echo.
func typeName(behavior any) string { return strings.TrimPrefix(fmt.Sprintf("%T", behavior), "*") }

// checkOptions checks what the options of processes and meta processes have in common, and
// returns the log level.
func checkOptions(of string, size int64, priority gen.MessagePriority, level gen.LogLevel, above *log) (gen.LogLevel, error) {
	level, err := inheritLevel(level, above.Level())
	if size < 0 {
		err = fmt.Errorf("MailboxSize %d is negative: %w", size, gen.ErrIncorrect)
	} else if err == nil {
		err = checkPriority(priority)
	}
	if err != nil {
		return 0, fmt.Errorf("%s.%w", of, err)
	}
	return level, nil
}

func checkPriority(p gen.MessagePriority) error {
	if p < gen.MessagePriorityNormal || p > gen.MessagePriorityMax {
		return fmt.Errorf("SendPriority %d is no priority: %w", int(p), gen.ErrIncorrect)
	}
	return nil
}
