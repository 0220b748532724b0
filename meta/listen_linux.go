package meta

import "syscall"

var closeOnExec = syscall.CloseOnExec

var fchmod = syscall.Fchmod
