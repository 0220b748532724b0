//go:build !unix

package meta

const canWait = false

func (s *socket) readNow([]byte) (int, error) { panic("unreachable: canWait is false") }
