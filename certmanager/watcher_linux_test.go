package certmanager_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// Where the system gives no file events, or no more of them, that is said once, and
// polling does. A user namespace of its own takes them from one process alone.
func TestWithoutInotify(t *testing.T) {
	const limitVariable = "CERTMANAGER_TEST_LIMIT"
	if limit := os.Getenv(limitVariable); limit != "" {
		require.NoError(t, os.WriteFile("/proc/sys/user/"+limit, []byte("0"), 0))
		pollWithoutInotify(t, "/proc/sys/user/"+limit)
		return
	}
	for _, limit := range []string{"max_inotify_instances", "max_inotify_watches"} {
		t.Run(limit, func(t *testing.T) {
			t.Parallel()
			inNamespace(t, "TestWithoutInotify", 0, limitVariable+"="+limit)
		})
	}
}

// inNamespace runs a test alone in a process whose user has an id of one's own choice: with 0 it
// may do as it likes there, with another it has no privileges at all, even if ours is the
// superuser.
func inNamespace(t *testing.T, test string, id int, variable string) {
	inside := exec.Command(os.Args[0], "-test.run=^"+test+"$", "-test.v", "-test.timeout=100s")
	inside.Env = append(os.Environ(), variable)
	inside.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: id, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: id, HostID: os.Getgid(), Size: 1}},
	}
	output, err := inside.CombinedOutput()
	if inside.Process == nil {
		t.Skipf("this machine gives no user namespace: %v", err)
	}
	require.NoError(t, err, string(output))
	require.Contains(t, string(output), "--- PASS: "+test)
}

// A superuser, as which tests often run, reads files whatever their mode: without that privilege
// the new pair arrives with a change of mode, and nothing else.
func TestUnreadableUntilChmod(t *testing.T) {
	const variable = "CERTMANAGER_TEST_CHMOD"
	if os.Getenv(variable) == "" {
		inNamespace(t, "TestUnreadableUntilChmod", 1000, variable+"=1")
		return
	}
	_, err := os.ReadFile(write(t, t.TempDir(), "secret", nil))
	require.NoError(t, err)
	closed := write(t, t.TempDir(), "secret", nil)
	require.NoError(t, os.Chmod(closed, 0))
	_, err = os.ReadFile(closed)
	require.ErrorIs(t, err, os.ErrPermission)

	ca := tlstest.NewCA(t)
	dir := t.TempDir()
	files := func(pair *tlstest.Pair) map[string][]byte {
		return map[string][]byte{"tls.crt": pair.CertPEM, "tls.key": pair.KeyPEM}
	}
	first, next := ca.Issue(t, tlstest.Leaf{}), ca.Issue(t, tlstest.Leaf{})
	require.NoError(t, tlstest.RenameOver(dir, files(first), nil))
	m := newManager(t, certmanager.Options{PollInterval: time.Hour, Source: certmanager.Files{Dir: dir}})
	events := collect(m)
	step := 0
	require.NoError(t, tlstest.UnreadableUntilChmod(dir, files(next), func() {
		if step++; step == 2 { // the certificate may be read, the key not yet
			eventually(t, "the report", func() bool { return len(events(certmanager.Rejected)) > 0 })
			require.ErrorIs(t, events(certmanager.Rejected)[len(events(certmanager.Rejected))-1].Err, os.ErrPermission)
			require.True(t, m.GetCertificate().Leaf.Equal(first.Leaf))
		}
	}))
	require.Equal(t, 2, step)
	eventually(t, "the new pair", func() bool { return m.GetCertificate().Leaf.Equal(next.Leaf) })
}

func pollWithoutInotify(t *testing.T, limit string) {
	ca := tlstest.NewCA(t)
	cert, key := ca.Issue(t, tlstest.Leaf{}).Files(t, t.TempDir(), "tls")
	var log logBuffer
	m := newManager(t, certmanager.Options{Logger: log.logger(), PollInterval: 20 * time.Millisecond, Source: certmanager.Files{Cert: cert, Key: key}})
	for range 3 {
		next := ca.Issue(t, tlstest.Leaf{})
		require.NoError(t, tlstest.WriteFile(key, next.KeyPEM, 0o600))
		require.NoError(t, tlstest.WriteFile(cert, next.CertPEM, 0o600))
		eventually(t, "the new certificate", func() bool { return serial(t, m, ca) == next.Leaf.SerialNumber.String() })
	}
	assert.Equal(t, 1, strings.Count(log.String(), "reason=polling"), log.String())
	assert.Contains(t, m.Status().Polling, "found by polling")

	require.NoError(t, os.WriteFile(limit, []byte("100"), 0))
	eventually(t, "events again", func() bool { return m.Status().Polling == "" })
	assert.Equal(t, 1, strings.Count(log.String(), "reason=polling"), log.String())
}
