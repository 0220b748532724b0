package meta

// signal wakes those who wait for a change. The mutex of what changes guards it; its zero value is
// ready.
type signal struct{ waiting chan struct{} }

// wait gives the channel that the next broadcast closes.
func (s *signal) wait() <-chan struct{} {
	if s.waiting == nil {
		s.waiting = make(chan struct{})
	}
	return s.waiting
}

func (s *signal) broadcast() {
	if s.waiting != nil {
		close(s.waiting)
		s.waiting = nil
	}
}
