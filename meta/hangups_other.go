//go:build !linux

package meta

// hangUps is never worthwhile here: the read loop reads until nothing is left.
var hangUps hangUpWatch

type hangUpWatch struct{}

func (hangUpWatch) worthwhile() bool { return false }

func (hangUpWatch) watch(*tcpConnection) { panic("unreachable: it is never worthwhile") }

func (hangUpWatch) arm() {}
