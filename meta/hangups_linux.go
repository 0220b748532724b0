package meta

import (
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// hangUps looks after connections that went to wait for their peer without having read to the point where nothing was left. What arrives
// later wakes them, but where the stream had ended together with the last bytes the poller has told of both at once. Shortly after
// they are asked in one system call whether it did; they do not ask each time for themselves. It starts no goroutine but that of a timer.
//
// That timer, which handshakes ask for too, bounds the sleep of Go's monitor thread, sysmon, which interrupts a goroutine that computes for long
// and polls the network where everybody computes: while nothing runs it sleeps, until the next timer or until the scheduler is told of a
// system call. See directRead.
var hangUps hangUpWatch

// watchInterval is how long the end of a stream may go unnoticed that came together with the last bytes, and how much later than usual a
// goroutine may be interrupted.
const watchInterval = 20 * time.Millisecond

// dense is how soon after another a message must come for the timer to cost less than it saves.
const dense = 2 * time.Millisecond

type hangUpWatch struct {
	mu    sync.Mutex // guards list
	list  []watched
	armed atomic.Bool  // the timer runs, and the monitor does not sleep beyond it
	asked atomic.Int64 // when worthwhile was asked without it; unix nanoseconds
}

// worthwhile says whether messages and handshakes come so densely that the timer should run.
func (w *hangUpWatch) worthwhile() bool {
	if w.armed.Load() {
		return true
	}
	now := time.Now().UnixNano()
	return now-w.asked.Swap(now) < int64(dense)
}

type watched struct {
	c  *tcpConnection
	fd int32
}

// watch is called by the read loop, within wait.
func (w *hangUpWatch) watch(c *tcpConnection) {
	if c.watched.Load() {
		return // what is asked then has happened already
	}
	c.watched.Store(true)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, watched{c, int32(c.sock.fd)})
	w.armLocked()
}

// arm has the timer run for a handshake that begins.
func (w *hangUpWatch) arm() {
	if w.worthwhile() && !w.armed.Load() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.armLocked()
	}
}

func (w *hangUpWatch) armLocked() {
	if !w.armed.Load() {
		time.AfterFunc(watchInterval, w.look)
		syscall.Syscall(syscall.SYS_GETPID, 0, 0, 0) // wakes a monitor that sleeps already and would not hear of the timer
		w.armed.Store(true)
	}
}

// look wakes those whose stream has ended. A descriptor may be closed meanwhile, or be another's: who is woken for nothing waits again.
func (w *hangUpWatch) look() {
	w.mu.Lock()
	w.armed.Store(false)
	list := w.list
	w.list = nil
	w.mu.Unlock()
	asked := make([]unix.PollFd, len(list))
	for i, one := range list {
		one.c.watched.Store(false)
		asked[i] = unix.PollFd{Fd: one.fd, Events: unix.POLLRDHUP}
	}
	_, err := unix.Poll(asked, 0)
	for i, one := range list {
		if (err != nil || asked[i].Revents != 0) && one.c.ended.Load() == nil {
			one.c.interrupt()
		}
	}
}
