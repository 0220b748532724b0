package meta

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
)

// SystemdListeners returns the listening sockets that systemd has opened for this process
// (sd_listen_fds(3)), for [TCPServerOptions.Listener]: those of a socket unit with
// FileDescriptorName=name, or all if name is empty. Such a service needs no privilege for its port,
// and clients that connect while it restarts wait. Each call makes new listeners: close those that
// are not used. Linux only.
//
// The error wraps [ErrListen]. It is also an error if systemd has opened none of that name.
func SystemdListeners(name string) ([]net.Listener, error) {
	var listeners []net.Listener
	err := errors.New("systemd has opened none for this process; set FileDescriptorName in the socket unit, and start the service by it")
	for _, file := range systemdSockets() {
		if name != "" && name != file.Name() {
			continue
		}
		var listener net.Listener
		if listener, err = net.FileListener(file); err != nil {
			break
		}
		listeners = append(listeners, listener)
	}
	if err != nil {
		for _, listener := range listeners {
			listener.Close()
		}
		return nil, fmt.Errorf("%w on the sockets with the name %q: %w", ErrListen, name, err)
	}
	return listeners, nil
}

// systemdSockets returns the sockets, each with its name. They stay open.
var systemdSockets = sync.OnceValue(func() (files []*os.File) {
	const first = 3 // SD_LISTEN_FDS_START
	if closeOnExec == nil || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil // they are another process's, which has handed its environment down
	}
	count, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for i := range count {
		name := "unknown" // as sd_listen_fds_with_names has it
		if i < len(names) && names[i] != "" {
			name = names[i]
		}
		closeOnExec(first + i)
		files = append(files, os.NewFile(uintptr(first+i), name))
	}
	return files
})
