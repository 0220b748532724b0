//go:build unix

package meta_test

import (
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// A server that runs out of descriptors keeps the connections that it has, says what is wrong, and
// serves who waits as soon as it can. The limit is one of the whole process, so the test runs in
// one of its own.
func TestOutOfDescriptors(t *testing.T) {
	const child = "ERGOTLS_TEST_OUT_OF_DESCRIPTORS"
	for _, m := range modes() {
		switch os.Getenv(child) {
		case "":
			t.Run(m.name, func(t *testing.T) {
				cmd := exec.Command(os.Args[0], "-test.run=^TestOutOfDescriptors$", "-test.timeout=60s")
				cmd.Env = append(os.Environ(), child+"="+m.name)
				output, err := cmd.CombinedOutput()
				require.NoError(t, err, "%s", output)
			})
		case m.name:
			testOutOfDescriptors(t, m)
		}
	}
}

func testOutOfDescriptors(t *testing.T, m mode) {
	a := newHost(t).spawn(echo)
	id, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager})
	early := m.dial(t, addr)
	talk(t, early)

	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 100, Max: 100}))
	var taken []*os.File
	for {
		file, err := os.Open(os.DevNull)
		if err != nil {
			require.ErrorIs(t, err, syscall.EMFILE)
			break
		}
		taken = append(taken, file)
	}
	require.NotEmpty(t, taken)
	taken[0].Close()
	late := dialTCP(t, addr) // takes the last descriptor; none is left for the server
	eventually(t, a.h.log.contains("out of descriptors"), "it says so")
	talk(t, early)
	assert.NotEqual(t, "0", a.inspect(id)["accept errors"])
	for _, file := range taken[1:] {
		file.Close()
	}
	talk(t, m.secure(t, late))
	talk(t, m.dial(t, addr))
}

// A unix socket's file is another's, with the mode that was asked for. Where it can't be given away
// the server does not start, and leaves no file.
func TestUnixOwner(t *testing.T) {
	path := t.TempDir() + "/s"
	stat := func() *syscall.Stat_t {
		file, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o660), file.Mode().Perm())
		return file.Sys().(*syscall.Stat_t)
	}
	start := func(owner string) error {
		server, err := meta.CreateTCPServer(meta.TCPServerOptions{UnixPath: path, UnixMode: 0o660, UnixOwner: owner})
		if err == nil {
			t.Cleanup(func() { server.Terminate(nil) })
		}
		return err
	}
	if os.Getuid() != 0 {
		require.ErrorContains(t, start("0"), "UnixOwner: chown")
		_, err := os.Stat(path)
		require.ErrorIs(t, err, os.ErrNotExist)
		require.NoError(t, start(":"+strconv.Itoa(os.Getgid())))
		assert.EqualValues(t, os.Getgid(), stat().Gid)
		return
	}
	require.NoError(t, start("4711:4712"))
	assert.EqualValues(t, 4711, stat().Uid)
	assert.EqualValues(t, 4712, stat().Gid)
	path += "2"
	require.NoError(t, start("nobody"))
	nobody, err := user.Lookup("nobody")
	require.NoError(t, err)
	assert.Equal(t, nobody.Uid, strconv.Itoa(int(stat().Uid)))
	assert.EqualValues(t, os.Getgid(), stat().Gid)
}
