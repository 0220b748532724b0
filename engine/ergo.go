// Package ergo is a single-node actor engine that implements the part of Ergo's
// public API that ergotls is written against, under Ergo's import paths.
package ergo

import (
	"ergo.services/ergo/gen"
	"ergo.services/ergo/internal/node"
)

// StartNode starts a node. The name has the form name@host; several nodes of
// different names may run in one program. Every node must be ended with
// Node.Stop or Node.StopForce.
func StartNode(name gen.Atom, options gen.NodeOptions) (gen.Node, error) {
	return node.Start(name, options)
}
