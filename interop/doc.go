// Package interop holds no code, only the tests of meta and certmanager against the TLS programs of
// others: as clients of our server, as servers of our client, and scanners.
//
//	go test ./interop          # all of it; a program that is not installed is skipped by its name
//	go test ./interop -short   # without the slow scanner
//	go test ./interop -write   # also writes what was measured to docs/interop.md
//
// Everything listens on the loopback interface as far as the program in question can be told to,
// and each program has a deadline.
package interop
