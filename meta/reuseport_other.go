//go:build !unix || solaris

package meta

import "syscall"

// The build tag solaris holds on illumos too.
var reusePort func(network, address string, raw syscall.RawConn) error
