//go:build !linux

package meta

// canWatch says that hangUps works. Where it does not, the read loop reads until nothing is left.
const canWatch = false

var hangUps hangUpWatch

type hangUpWatch struct{}

func (hangUpWatch) watch(*tcpConnection) { panic("unreachable: canWatch is false") }
