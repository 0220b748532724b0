package meta

import "syscall"

var closeOnExec = syscall.CloseOnExec
