//go:build !unix

package meta

const canPoll = false

func (s *socket) unblock() {}

func (s *socket) readNow([]byte) (int, error) { panic("unreachable: canPoll is false") }

func (s *socket) writeOnce(uintptr) bool { panic("unreachable: canPoll is false") }
