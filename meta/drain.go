package meta

import "time"

// drain stops accepting and returns when all connections have ended, with the number that it had to
// end.
func (s *tcpServer) drain(timeout time.Duration) (evicted int) {
	s.close()
	<-s.stopped // what was accepted before is served
	s.mu.Lock()
	open := s.openLocked()
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
		c.draining(deadline)
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

// draining has the read loop tell the owner that the connection ends at a time.
func (c *tcpConnection) draining(deadline time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drainBy = deadline; c.phase >= open {
		c.interruptLocked()
	}
}
