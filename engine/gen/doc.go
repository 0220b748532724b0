// Package gen holds what an application and the engine share: identifiers, the node and process
// interfaces, options, errors, and the messages that the engine itself delivers. Start a node with
// [ergo.services/ergo.StartNode] and write processes on [ergo.services/ergo/act.Actor].
package gen
