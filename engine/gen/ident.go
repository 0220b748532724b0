package gen

import (
	"fmt"
	"hash/crc32"
	"strings"
)

// Atom is a name of a node or of a process.
type Atom string

// String returns the name in single quotes.
func (a Atom) String() string { return "'" + string(a) + "'" }

// Host returns what follows the '@' of a node name, or "" where there is none.
func (a Atom) Host() string {
	_, host, _ := strings.Cut(string(a), "@")
	return host
}

func (a Atom) checksum() uint32 { return crc32.ChecksumIEEE([]byte(a)) }

// PID identifies a process. IDs are never reused in one run of a node; Creation tells runs apart.
type PID struct {
	Node     Atom
	ID       uint64
	Creation int64
}

// String returns the PID as <node checksum.high.low>.
func (p PID) String() string {
	return fmt.Sprintf("<%08X.%d.%d>", p.Node.checksum(), p.ID>>32, uint32(p.ID))
}

// ProcessID is a process's registered name. An empty Node means the local one.
type ProcessID struct {
	Name Atom
	Node Atom
}

// String returns the name as <node checksum.'name'>.
func (p ProcessID) String() string {
	return fmt.Sprintf("<%08X.%s>", p.Node.checksum(), p.Name)
}

// Ref is unique among the references of a node. It ties a response to its request.
type Ref struct {
	Node     Atom
	Creation int64
	ID       [3]uint64
}

// String returns the reference as Ref#<node checksum.id.id.id>.
func (r Ref) String() string { return "Ref#" + r.text() }

func (r Ref) text() string {
	return fmt.Sprintf("<%08X.%d.%d.%d>", r.Node.checksum(), r.ID[0], r.ID[1], r.ID[2])
}

// Alias identifies a meta process, or is a further address of a process. It is never reused.
type Alias Ref

// String returns the alias as Alias#<node checksum.id.id.id>.
func (a Alias) String() string { return "Alias#" + Ref(a).text() }

// Env is a name in an environment. Case matters.
type Env string

// String returns the name as it was given.
func (e Env) String() string { return string(e) }
