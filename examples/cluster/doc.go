//go:build !upstream

// Cluster needs Ergo itself: the embedded engine has a single node. See main.go.
package main

import "log"

func main() { log.Fatal("run it on Ergo itself: GOWORK=off go run -tags upstream ./examples/cluster") }
