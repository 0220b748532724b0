package meta

import "cmp"

// accepting is when a server takes a further connection. The server's mu guards it.
type accepting struct {
	max       MessageTCPLimits // those in force; -1: no limit
	slots     int              // of the open connections, and one of the accept loop
	suspended bool             // by MessageTCPSuspend
	alarmed   bool             // the last MessageTCPAlarm had High
}

func (a *accepting) hasRoom() bool {
	return !a.suspended && (a.max.MaxConnections < 0 || a.slots <= a.max.MaxConnections)
}

func (s *tcpServer) takeSlot() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slots++
}

// awaitRoom waits until the connection that the accept loop has, or waits for, may be served. It
// returns false if the server closes before.
func (s *tcpServer) awaitRoom() bool { return s.await(s.hasRoom, s.closing) }

// acceptState says for people whether the server takes a further connection.
func (s *tcpServer) acceptState() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case isClosed(s.closing):
		return "no: closed"
	case s.suspended:
		return "no: suspended"
	case !s.hasRoom():
		return "no: MaxConnections is reached"
	default:
		return "yes"
	}
}

// control does what a message says about accepting, and gives the answer to a Call; nil where the
// message is not about that.
func (s *tcpServer) control(message any) any {
	switch m := message.(type) {
	case MessageTCPSuspend:
		return s.suspend(true)
	case MessageTCPResume:
		return s.suspend(false)
	case MessageTCPLimits:
		return s.changeLimits(m)
	}
	return nil
}

func (s *tcpServer) suspend(suspended bool) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed = s.suspended != suspended
	s.suspended = suspended
	s.changed.broadcast()
	return changed
}

// limits gives those in force, -1 for none.
func (s *tcpServer) limits() MessageTCPLimits {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.max
}

// changeLimits returns those that were in force, or an error. The message goroutine alone calls it.
func (s *tcpServer) changeLimits(m MessageTCPLimits) any {
	before, options := s.limits(), s.opt
	options.MaxConnections = changeLimit(before.MaxConnections, m.MaxConnections)
	options.MaxConnectionsPerAddress = changeLimit(before.MaxConnectionsPerAddress, m.MaxConnectionsPerAddress)
	options.MaxHandshakes = changeLimit(before.MaxHandshakes, m.MaxHandshakes)
	options.MaxHandshakeFailures = changeLimit(before.MaxHandshakeFailures, m.MaxHandshakeFailures)
	var c check
	c.numbers("", options)
	options.checkLimits(&c)
	if err := c.err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.max = options.limits()
	s.handshakes.setMax(s.max.MaxHandshakes)
	s.changed.broadcast()
	return before
}

// changeLimit returns the option that a limit becomes by a message.
func changeLimit(before, change int) (option int) {
	if option = cmp.Or(change, before); option == -1 {
		return 0
	}
	return option
}

// alarmLocked tells the parent where the number of connections has reached a mark. It is called
// with mu held, so that the messages come in order; the next change makes up for one for which the
// mailbox had no room.
func (s *tcpServer) alarmLocked() {
	n := len(s.open)
	if s.opt.AlarmHigh == 0 || s.alarmed && n > s.opt.AlarmLow || !s.alarmed && n < s.opt.AlarmHigh {
		return
	}
	if s.process.Send(s.parent, MessageTCPAlarm{ID: s.process.ID(), Connections: n, High: !s.alarmed}) == nil {
		s.alarmed = !s.alarmed
	}
}
