package meta

import (
	"fmt"
	"reflect"
)

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
