//go:build !unix || solaris

package meta

import "syscall"

// The build tag solaris includes illumos.
var reusePort func(network, address string, raw syscall.RawConn) error
