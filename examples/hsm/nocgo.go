//go:build !cgo

package main

import "log"

func main() {
	log.Fatal("PKCS #11 libraries are called through cgo: build with CGO_ENABLED=1 and a C compiler")
}
