//go:build !linux

package meta

import (
	"net"
	"time"
)

var inheritKeepAlive func(listener *net.TCPListener, period time.Duration) error
