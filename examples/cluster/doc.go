//go:build !upstream

// Cluster needs Ergo itself: the embedded engine has a single node. See main.go.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "cluster has two nodes, which the embedded engine does not: run it on Ergo itself")
	fmt.Fprintln(os.Stderr, "    GOWORK=off go run -tags upstream ./examples/cluster")
	os.Exit(2)
}
