package meta_test

import (
	"net"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// The sockets that a parent has opened, as systemd does, are found by their names; without one the
// error says what to do.
func TestSystemdListeners(t *testing.T) {
	const second = "ERGOTLS_TEST_SYSTEMD"
	if os.Getenv(second) == "" {
		_, err := meta.SystemdListeners("web")
		require.ErrorIs(t, err, meta.ErrListen)
		assert.ErrorContains(t, err, "FileDescriptorName")

		// A shell knows the number that its own process will go on with.
		command := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" -test.run '^TestSystemdListeners$'`, os.Args[0])
		command.Env = append(os.Environ(), second+"=1", "LISTEN_FDS=3", "LISTEN_FDNAMES=web:admin:web")
		for range 3 {
			file, err := newListener(t).(*net.TCPListener).File()
			require.NoError(t, err)
			defer file.Close()
			command.ExtraFiles = append(command.ExtraFiles, file)
		}
		output, err := command.CombinedOutput()
		require.NoError(t, err, string(output))
		return
	}
	web, err := meta.SystemdListeners("web")
	require.NoError(t, err)
	assert.Len(t, web, 2)
	admin, err := meta.SystemdListeners("admin")
	require.NoError(t, err)
	require.Len(t, admin, 1)
	again, err := meta.SystemdListeners("admin")
	require.NoError(t, err)
	assert.Equal(t, admin[0].Addr(), again[0].Addr())
	again[0].Close()
	_, err = meta.SystemdListeners("other")
	assert.ErrorIs(t, err, meta.ErrListen)

	a := newHost(t).spawn(echo)
	for _, listener := range append(web, admin...) {
		_, addr := a.listen(meta.TCPServerOptions{Listener: listener})
		talk(t, dialTCP(t, addr))
	}
}
