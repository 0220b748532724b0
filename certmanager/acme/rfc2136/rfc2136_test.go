package rfc2136_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libdns/libdns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/certmanager/acme/rfc2136"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ acme.DNSProvider = (*rfc2136.Provider)(nil)

const secret = "c2VjcmV0LW9mLXRoZS10ZXN0LW9ubHkh"

// startNamed runs Debian's named with the zone example.test, which one key may update, until the
// end of the test.
func startNamed(t *testing.T) (addr string) {
	t.Helper()
	program, err := exec.LookPath("named")
	if err != nil && os.Getenv("CI") != "" {
		t.Fatalf("named is not installed, and CI skips nothing: add it to .ci/run")
	}
	if err != nil {
		t.Skip("named (bind9) is not installed")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o777))
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
		return path
	}
	write("zone", "$TTL 60\n@ IN SOA ns.example.test. hostmaster.example.test. 1 60 60 60 1\n@ IN NS ns.example.test.\nns IN A 127.0.0.1\n")
	config := write("named.conf", fmt.Sprintf(`
options { directory %q; listen-on port %d { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; pid-file none; session-keyfile none; dnssec-validation no; };
controls { };
key "acme." { algorithm hmac-sha256; secret %q; };
key "other." { algorithm hmac-sha256; secret %q; };
zone "example.test" { type primary; file "zone"; allow-update { key "acme."; }; };
`, dir, port, secret, secret))
	var log strings.Builder
	named := exec.Command(program, "-g", "-c", config, "-n", "1")
	named.Stdout, named.Stderr = &log, &log
	require.NoError(t, named.Start())
	t.Cleanup(func() {
		named.Process.Kill()
		named.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	addr = fmt.Sprintf("127.0.0.1:%d", port)
	require.Eventually(t, func() bool {
		hosts, err := resolver(addr).LookupHost(t.Context(), "ns.example.test.")
		return err == nil && len(hosts) == 1
	}, 20*time.Second, 50*time.Millisecond, "named does not answer")
	return addr
}

func resolver(addr string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
}

func txt(value string) []libdns.Record {
	return []libdns.Record{libdns.TXT{Name: "_acme-challenge", Text: value, TTL: time.Minute}}
}

// Two values stand under one name, and are removed one by one.
func TestUpdates(t *testing.T) {
	addr := startNamed(t)
	p := &rfc2136.Provider{Server: addr, KeyName: "acme", Secret: secret}
	values := func() []string {
		found, _ := resolver(addr).LookupTXT(t.Context(), "_acme-challenge.example.test.")
		slices.Sort(found)
		return found
	}
	long := strings.Repeat("a", 300)
	for _, value := range []string{"one", `with "quotes" and \ in it`, long} {
		_, err := p.AppendRecords(t.Context(), "example.test.", txt(value))
		require.NoError(t, err)
	}
	assert.Equal(t, []string{long, "one", `with "quotes" and \ in it`}, values())
	for range 2 { // the second time it is not there
		_, err := p.DeleteRecords(t.Context(), "example.test.", txt("one"))
		require.NoError(t, err)
	}
	assert.Len(t, values(), 2)
	for _, value := range []string{`with "quotes" and \ in it`, long} {
		_, err := p.DeleteRecords(t.Context(), "example.test", txt(value))
		require.NoError(t, err)
	}
	assert.Empty(t, values())
}

func TestRefusals(t *testing.T) {
	addr := startNamed(t)
	for want, p := range map[string]*rfc2136.Provider{
		"REFUSED":           {Server: addr},
		"may not update":    {Server: addr, KeyName: "other.", Secret: secret},
		"NOTAUTH":           {Server: addr, KeyName: "unknown.", Secret: secret},
		"only one of":       {Server: addr, KeyName: "acme."},
		"not base64":        {Server: addr, KeyName: "acme.", Secret: "???"},
		"Server is not set": {},
		"refused":           {Server: "127.0.0.1:1", KeyName: "acme.", Secret: secret},
	} {
		_, err := p.AppendRecords(t.Context(), "example.test.", txt("one"))
		require.ErrorContains(t, err, want)
		assert.NotContains(t, err.Error(), secret)
	}
	p := &rfc2136.Provider{Server: addr, KeyName: "acme", Secret: secret}
	_, err := p.AppendRecords(t.Context(), "elsewhere.test.", txt("one"))
	require.ErrorContains(t, err, "NOTAUTH")
}
