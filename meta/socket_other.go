//go:build !unix

package meta

const canWait = false

func (s *socket) unblock() {}

func (s *socket) readNow([]byte) (int, error) { panic("unreachable: canWait is false") }

func (s *socket) writeNow([]byte) (int, error) { panic("unreachable: canWait is false") }

func (s *socket) writeOnce(uintptr) bool { panic("unreachable: canWait is false") }
