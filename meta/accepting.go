package meta

import "cmp"

// accepting is the state that decides whether a server accepts another connection. The server's mu
// guards it.
type accepting struct {
	max       MessageTCPLimits // current limits; -1: no limit
	slots     int              // one for each open connection, and one for the accept loop
	suspended bool             // set by MessageTCPSuspend, cleared by MessageTCPResume
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

// awaitRoom waits until the connection that the accept loop has accepted, or is about to accept,
// may be served. It returns false if the server closes first.
func (s *tcpServer) awaitRoom() bool { return s.await(s.hasRoom, s.closing) }

// acceptState describes, for Inspect, whether the server accepts another connection.
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

// control handles a message that changes accepting and returns the answer to a Call, or nil for any
// other message.
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

// limits returns the current limits; -1 means no limit.
func (s *tcpServer) limits() MessageTCPLimits {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.max
}

// changeLimits returns the previous limits, or an error. Only the message goroutine calls it.
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

// changeLimit returns the value of an option after a MessageTCPLimits.
func changeLimit(before, change int) (option int) {
	if option = cmp.Or(change, before); option == -1 {
		return 0
	}
	return option
}

// alarmLocked sends a MessageTCPAlarm if the number of connections has reached AlarmHigh or
// AlarmLow. It is called with mu held, so that the messages are in order. If the mailbox is full,
// the next change of the number tries again.
func (s *tcpServer) alarmLocked() {
	n := len(s.open)
	if s.opt.AlarmHigh == 0 || s.alarmed && n > s.opt.AlarmLow || !s.alarmed && n < s.opt.AlarmHigh {
		return
	}
	if s.process.Send(s.parent, MessageTCPAlarm{ID: s.process.ID(), Connections: n, High: !s.alarmed}) == nil {
		s.alarmed = !s.alarmed
	}
}
