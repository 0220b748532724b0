package meta

import "time"

// drain stops accepting and returns when all connections have ended, with the number that it had to end.
func (s *tcpServer) drain(timeout time.Duration) (evicted int) {
	s.close()
	<-s.stopped // what was accepted before is served
	s.mu.Lock()
	open := make([]*tcpConnection, 0, len(s.open))
	for c := range s.open {
		open = append(open, c)
	}
	if s.empty == nil && len(open) > 0 {
		s.empty = make(chan struct{})
	}
	empty := s.empty
	s.mu.Unlock()
	if len(open) == 0 {
		return 0
	}
	deadline := time.Now().Add(timeout)
	for _, c := range open {
		c.drainAt.Store(&deadline)
		c.draining()
	}
	select {
	case <-empty:
		return 0
	case <-time.After(timeout):
	}
	for _, c := range open {
		if c.end(ErrDrained, nil) {
			evicted++
		}
	}
	<-empty // each ends within its CloseTimeout
	return evicted
}

// draining sends the Draining that drain has asked for, once, not before Connect and not after Disconnect.
func (c *tcpConnection) draining() {
	c.telling.Lock()
	defer c.telling.Unlock()
	if !c.connected.Load() || c.final {
		return
	}
	if deadline := c.drainAt.Swap(nil); deadline != nil {
		c.send(MessageTCPDraining{ID: c.process.ID(), Deadline: *deadline})
	}
}
