//go:build !upstream

// Cluster needs Ergo itself: the embedded engine has a single node. See main.go.
package main

func main() { panic("run it as: go run -modfile=go.upstream.mod -tags upstream ./examples/cluster") }
