//go:build !unix

package meta

import "syscall"

var reusePort func(network, address string, raw syscall.RawConn) error
