package node

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
	box  mailbox.Mailbox
	log  log
	kind kind

	gathers    bool // see gather, as for the next two, which are the consumer's
	skip, vain uint8
}

// kind is the part in which they differ.
type kind interface {
	work() error         // handles messages until there are none
	awake(running bool)  // keeps the state that is shown
	shut(err error) bool // closes the mailbox; true where the caller is now the consumer
	terminate()          // runs the last callback
}

// run handles messages until there are none left or the mailbox was closed. It
// runs on a worker, except that a meta process whose Start has returned may
// terminate on that goroutine.
func (u *unit) run() {
	// A callback that ends its goroutine (runtime.Goexit, as a failed test does)
	// must not leave a unit behind that is never terminated.
	exited := true
	defer func() {
		if exited {
			u.kind.shut(gen.TerminateReasonPanic)
			u.kind.terminate()
		}
	}()
	for {
		u.kind.awake(true)
		if err := u.guard(u.kind.work); err != nil {
			u.kind.shut(err)
		}
		u.kind.awake(false)
		switch u.box.Park() {
		case mailbox.Parked:
			exited = false
			return
		case mailbox.Closed:
			exited = false
			u.kind.terminate()
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
