package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/certmanager/acme/rfc2136"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

const tsigSecret = "c2VjcmV0LW9mLXRoZS10ZXN0LW9ubHkh"

// startNamed runs Debian's named with a zone, which one key may update, until the end of the test.
func startNamed(t *testing.T) (addr string) {
	t.Helper()
	program, err := exec.LookPath("named")
	if err != nil {
		require.Empty(t, os.Getenv("CI"), "named is not installed, and CI skips nothing")
		t.Skip("named (bind9) is not installed")
	}
	addr = freeAddr(t)
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o777))
	config := fmt.Sprintf(`
options { directory %q; listen-on port %s { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; pid-file none; session-keyfile none; dnssec-validation no; };
controls { };
key "acme." { algorithm hmac-sha256; secret %q; };
`, dir, port, tsigSecret)
	config += `zone "example.test" { type primary; file "zone"; allow-update { key "acme."; }; };`
	const contents = "$TTL 60\n@ IN SOA ns hostmaster 1 60 60 60 1\n@ IN NS ns\nns IN A 127.0.0.1\n@ IN A 127.0.0.1\n" +
		"www IN CNAME @\n_acme-challenge.api IN CNAME api.challenges\n*.tenants IN CNAME balancer.elsewhere.test.\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "zone"), []byte(contents), 0o666))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "named.conf"), []byte(config), 0o666))
	named := exec.Command(program, "-g", "-c", filepath.Join(dir, "named.conf"), "-n", "1")
	require.NoError(t, named.Start())
	t.Cleanup(func() {
		named.Process.Kill()
		named.Wait()
	})
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, 20*time.Second, 20*time.Millisecond, "named does not listen")
	return addr
}

// DNS-01 with a real name server: a wildcard beside its zone, an alias of the zone, and a challenge
// whose alias leads to a name that there is not yet, and a wildcard that is an alias elsewhere.
func TestDNS01WithNamed(t *testing.T) {
	t.Parallel()
	addr := startNamed(t)
	ca := acmetest.StartWith(t, acmetest.Options{NameServer: addr})
	w := start(t, ca, &acme.Source{
		Domains: []string{zone, wildcard, name, other, "*.tenants.example.test"}, DNSServers: []string{addr},
		DNS: &rfc2136.Provider{Server: addr, KeyName: "acme", Secret: tsigSecret},
	})
	w.serve(t)
	for _, host := range []string{zone, "any.example.test", name, other, "any.tenants.example.test"} {
		w.mustDial(t, host)
	}
	assert.Equal(t, 5, ca.Orders())
	asked := &net.Resolver{PreferGo: true}
	asked.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	for _, record := range []string{"_acme-challenge.example.test.", "_acme-challenge.www.example.test.", "api.challenges.example.test."} {
		values, _ := asked.LookupTXT(t.Context(), record)
		assert.Empty(t, values, "no record is left: %s", record)
	}
}
