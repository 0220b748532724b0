package node

// Goroutine: unit.serve, which handles messages. It is started by whoever puts
// the first message into an empty mailbox (deliver), or ends a unit whose mailbox
// is empty; it ends when the mailbox is empty again or the unit has terminated.

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"ergo.services/ergo/gen"
	"ergo.services/ergo/internal/mailbox"
)

// unit is what a process and a meta process have in common: a mailbox, and
// callbacks that one goroutine at a time runs.
type unit struct {
	box mailbox.Mailbox
	log *log
	// serve is the body of the goroutine that handles messages. It is kept as a
	// function value because "go u.serve()" then allocates nothing.
	serve func()
}

// worker is the part of it in which they differ.
type worker interface {
	work() error         // handles messages until there are none
	awake(running bool)  // keeps the state that is shown
	shut(err error) bool // closes the mailbox; true where the caller is now the consumer
	terminate()          // runs the last callback
}

// run handles messages until there are none left or the mailbox was closed.
func (u *unit) run(w worker) {
	// A callback that ends its goroutine (runtime.Goexit, as a failed test does)
	// must not leave a unit behind that is never terminated.
	exited := true
	defer func() {
		if exited {
			w.shut(gen.TerminateReasonPanic)
			w.terminate()
		}
	}()
	for {
		w.awake(true)
		if err := u.guard(w.work); err != nil {
			w.shut(err)
		}
		if u.box.Reason() != nil {
			exited = false
			w.terminate()
			return
		}
		w.awake(false)
		if u.box.Park() {
			exited = false
			return
		}
	}
}

// guard turns a panic of a callback into a reason. It cannot hold up a
// runtime.Goexit, but logs it.
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

// logEnd logs an end that is a failure.
func (u *unit) logEnd(reason error) {
	switch {
	case errors.Is(reason, gen.TerminateReasonNormal), errors.Is(reason, gen.TerminateReasonShutdown):
		u.log.Debug("terminated: %v", reason)
	default:
		u.log.Error("terminated: %v", reason)
	}
}

// panicPlace finds the line that panicked: the first frame below the runtime's.
// It is for a deferred function that has recovered.
func panicPlace() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	panicking := false
	for {
		frame, more := frames.Next()
		switch {
		case frame.Function == "runtime.gopanic":
			panicking = true
		case panicking && !strings.HasPrefix(frame.Function, "runtime."):
			return fmt.Sprintf("%s (%s:%d)", frame.Function, frame.File, frame.Line)
		}
		if !more {
			return "unknown place"
		}
	}
}

func orNormal(reason error) error {
	if reason == nil {
		return gen.TerminateReasonNormal
	}
	return reason
}

// typeName names the type behind a process or meta process, as in main.echo.
func typeName(behavior any) string { return strings.TrimPrefix(fmt.Sprintf("%T", behavior), "*") }

func checkPriority(p gen.MessagePriority) error {
	if p < gen.MessagePriorityNormal || p > gen.MessagePriorityMax {
		return fmt.Errorf("no such priority: %d: %w", int(p), gen.ErrIncorrect)
	}
	return nil
}
