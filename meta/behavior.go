package meta

import (
	"fmt"
	"reflect"

	"ergo.services/ergo/gen"
)

// behavior is embedded in the meta processes of this package. Releases of Ergo add callbacks to
// gen.MetaBehavior: 3.3.1 has HandleResponse(gen.MessageResponse), a type that 3.3.0 does not
// have, so that no method can name it. The embedded interface has whatever methods the release
// has. It is nil: the engine calls such a method only on a meta process that has sent a request,
// and those of this package send none.
//
// A callback that one forgets to write also compiles: all of Init, Start, HandleInspect and
// Terminate are needed.
type behavior struct {
	gen.MetaBehavior
	process gen.MetaProcess // set by Init
}

// HandleMessage implements gen.MetaBehavior for those that take no messages.
func (b *behavior) HandleMessage(from gen.PID, message any) error {
	b.process.Log().Warning("unknown message from %s ignored: %T", from, message)
	return nil
}

// HandleCall implements gen.MetaBehavior for those that answer no calls.
func (b *behavior) HandleCall(gen.PID, gen.Ref, any) (any, error) { return gen.ErrUnsupported, nil }

// ownerOf is the process with a name, or the parent of a meta process where there is no name.
func ownerOf(process gen.MetaProcess, name gen.Atom) any {
	if name == "" {
		return process.Parent()
	}
	return name
}

// connectionMessages is what a connection takes, for the log.
const connectionMessages = "a connection takes MessageTCP, MessageTCPClose, MessageTCPCloseWrite, MessageTCPActive, MessageTCPOwner and MessageTCPStartTLS"

// meant says what the sender of an unknown message should have sent, and else what is taken.
func meant(message any, taken string) string {
	switch t := reflect.TypeOf(message); {
	case t == nil:
		return taken
	case t.Kind() == reflect.Pointer && t.Elem().PkgPath() == reflect.TypeFor[MessageTCP]().PkgPath():
		return fmt.Sprintf("send the %s itself, not a pointer to it", t.Elem())
	case t.Kind() == reflect.String, t == reflect.TypeFor[[]byte]():
		return "send a connection's bytes as MessageTCP{Data: …}"
	}
	return taken
}
