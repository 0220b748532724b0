package meta

import (
	"fmt"
	"reflect"

	"ergo.services/ergo/gen"
)

// behavior is embedded in the meta processes of this package. Releases of Ergo add callbacks to
// gen.MetaBehavior: 3.3.1 has HandleResponse(gen.MessageResponse). Release 3.3.0 lacks that type,
// so this package can't implement the method. The embedded interface has the methods of the release
// in use. It is nil, which is safe: the engine calls such a method only on a meta process that has
// sent a request, and those of this package send none.
//
// The compiler does not notice a missing callback: implement all of Init, Start, HandleInspect and
// Terminate.
type behavior struct {
	gen.MetaBehavior
	process gen.MetaProcess // set by Init
}

// HandleMessage implements gen.MetaBehavior for meta processes that accept no messages.
func (b *behavior) HandleMessage(from gen.PID, message any) error {
	b.process.Log().Warning("unknown message from %s ignored: %T", from, message)
	return nil
}

// HandleCall implements gen.MetaBehavior for meta processes that answer no calls.
func (b *behavior) HandleCall(gen.PID, gen.Ref, any) (any, error) { return gen.ErrUnsupported, nil }

// ownerOf returns name, or the parent of the meta process if name is empty.
func ownerOf(process gen.MetaProcess, name gen.Atom) any {
	if name == "" {
		return process.Parent()
	}
	return name
}

// connectionMessages lists the messages that a connection accepts, for the log.
const connectionMessages = "a connection takes MessageTCP, MessageTCPClose, MessageTCPCloseWrite, MessageTCPActive, MessageTCPOwner and MessageTCPStartTLS"

// meant returns what the sender of an unknown message should have sent, or taken if that is
// unclear.
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
