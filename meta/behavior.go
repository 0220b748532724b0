package meta

import "ergo.services/ergo/gen"

// behavior is embedded in the meta processes of this package. Releases of Ergo add callbacks to
// gen.MetaBehavior: 3.3.1 has HandleResponse(gen.MessageResponse), a type that 3.3.0 does not
// have, so that no method can name it. The embedded interface has whatever methods the release
// has. It is nil: the engine calls such a method only on a meta process that has sent a request,
// and those of this package send none.
//
// A callback that one forgets to write also compiles: all of Init, Start, HandleMessage,
// HandleCall, HandleInspect and Terminate are needed.
type behavior struct{ gen.MetaBehavior }
