package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

const (
	zone     = "example.test"
	wildcard = "*." + zone
)

// persistent returns a source of DNS-PERSIST-01, and sets the records that it wants.
func persistent(t *testing.T, ca *acmetest.Server, source *acme.Source) []acme.Record {
	t.Helper()
	source.DNSPersist, source.DNSServers = true, []string{ca.DNS()}
	source.Directory, source.Roots = ca.Directory(), ca.Roots()
	if source.Cache == nil {
		source.Cache = autocert.DirCache(t.TempDir())
	}
	records, err := source.Records(t.Context())
	require.NoError(t, err)
	for _, r := range records {
		ca.SetTXT(r.Name, r.Value)
	}
	return records
}

// With one record a name and its wildcard are issued and renewed, with no port open.
func TestDNSPersist(t *testing.T) {
	needs.Long(t)
	t.Parallel()
	ca := short(t)
	source := &acme.Source{Domains: []string{zone, wildcard}, PersistUntil: time.Now().Add(time.Hour)}
	records := persistent(t, ca, source)
	require.Len(t, records, 2)
	for _, r := range records {
		assert.Equal(t, "_validation-persist.example.test", r.Name)
		assert.ErrorContains(t, r.Err, "missing")
		assert.Contains(t, r.Value, "; policy=wildcard; persistUntil=")
	}
	records, err := source.Records(t.Context())
	require.NoError(t, err)
	assert.NoError(t, records[0].Err)
	assert.Zero(t, ca.Orders())

	source.Listen = "nowhere" // nothing is opened
	w := start(t, ca, source)
	w.serve(t)
	assert.Equal(t, 2, ca.Orders())
	assert.Equal(t, 1, ca.Accounts())
	for _, host := range []string{zone, "a.example.test", "b.example.test"} {
		require.NoError(t, w.mustDial(t, host).VerifyHostname(host))
	}
	_, err = w.dial(t.Context(), "a.b.example.test")
	require.Error(t, err, "a wildcard is for one label")
	status := w.Status().ACME[0]
	assert.Equal(t, "dns-persist-01", status.Challenge)
	assert.Contains(t, status.Record, `_validation-persist.example.test. IN TXT "acmetest.invalid; accounturi=`)
	assert.True(t, status.RecordUntil.Equal(source.PersistUntil.Truncate(time.Second)))
	assert.Contains(t, w.events.String(), "after that nothing can be renewed", "the record ends in an hour")
	first := w.mustDial(t, zone)
	w.eventually(t, "the renewal", func() bool { return !w.mustDial(t, zone).Equal(first) })

	// The record ends: nothing is ordered in vain, and the reason is reported.
	ca.SetTXT(records[0].Name, strings.Replace(records[0].Value, "persistUntil=", "persistUntil=1", 1)[:len(records[0].Value)-5])
	w.eventually(t, "a failure", func() bool { return len(w.events.of(certmanager.OrderFailed)) > 0 })
	orders := ca.Orders()
	assert.Contains(t, w.events.of(certmanager.OrderFailed)[0], "the record ended on")
	w.eventually(t, "another failure", func() bool { return len(w.events.of(certmanager.OrderFailed)) > 2 })
	assert.Equal(t, orders, ca.Orders())
}

// Without the right record nothing is ordered, and the error has it.
func TestDNSPersistRecordIsWrong(t *testing.T) {
	needs.Long(t)
	t.Parallel()
	ca := acmetest.Start(t)
	source := &acme.Source{Domains: []string{wildcard}}
	record := persistent(t, ca, source)[0]
	for want, value := range map[string]string{
		"is missing":         "",
		"another account":    strings.Replace(record.Value, "/my-account/", "/my-account/0", 1),
		"policy=wildcard":    strings.Replace(record.Value, "; policy=wildcard", "", 1),
		"ended on":           record.Value + "; persistUntil=1",
		"is malformed":       record.Value + "; persistUntil=never",
		"the record is miss": strings.Replace(record.Value, "acmetest.invalid", "other.invalid", 1),
	} {
		ca.SetTXT(record.Name)
		if value != "" {
			ca.SetTXT(record.Name, value)
		}
		_, err := tryStart(t, ca, source)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, record.String())
	}
	assert.Zero(t, ca.Orders())

	// In the background it is found when it is written.
	source.Background = true
	w := start(t, ca, source)
	w.eventually(t, "the reason", func() bool { return len(w.events.of(certmanager.OrderFailed)) > 0 })
	assert.Contains(t, w.Status().ACME[0].Record, record.Value)
	ca.SetTXT(record.Name, "an older one", record.Value)
	w.eventually(t, "the certificate", func() bool { return w.Status().ACME[0].Serving })
	assert.Equal(t, 1, ca.Orders())
}

// A policy that allows a wildcard gets it for the names below.
func TestHostPolicyAllowsAWildcard(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	source := &acme.Source{Domains: []string{wildcard}}
	persistent(t, ca, source)
	source.Domains, source.HandshakeTimeout = nil, 20*time.Second
	source.HostPolicy = func(_ context.Context, host string) error {
		if host == wildcard {
			return nil
		}
		return errors.New("not here")
	}
	w := start(t, ca, source)
	w.serve(t)
	for _, host := range []string{"a.example.test", "b.example.test"} {
		w.mustDial(t, host)
	}
	assert.Equal(t, 1, ca.Orders(wildcard))
	assert.Equal(t, 1, ca.Orders())
}

// An address is ordered, validated by either kind of challenge, and served to clients that name no
// server.
func TestAddresses(t *testing.T) {
	for _, kind := range []string{"tls-alpn-01", "http-01"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ca := acmetest.Start(t)
			source := &acme.Source{Domains: []string{name, "127.0.0.1"}}
			if kind == "http-01" {
				source.ListenHTTP, source.Listen = freeAddr(t), freeAddr(t)
				ca.HTTP01(source.ListenHTTP)
			}
			w := start(t, ca, source)
			w.serve(t)
			conn, err := tls.Dial("tcp", w.addr, &tls.Config{RootCAs: ca.Roots()}) // verifies the address
			require.NoError(t, err)
			leaf := conn.ConnectionState().PeerCertificates[0]
			require.NoError(t, conn.Close())
			assert.Equal(t, "127.0.0.1", leaf.IPAddresses[0].String())
			assert.Equal(t, name, w.mustDial(t, name).DNSNames[0])
		})
	}
}

// The command prints the records, and says when they are there.
func TestRecordsCommand(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	folder := t.TempDir()
	program, roots := filepath.Join(folder, "acmerecords"), filepath.Join(folder, "roots.pem")
	build := exec.Command("go", "build", "-o", program, "./certmanager/acme/cmd/acmerecords")
	build.Dir = "../../.."
	output, err := build.CombinedOutput()
	require.NoError(t, err, "%s", output)
	require.NoError(t, os.WriteFile(roots, rootsPEM(ca), 0o600))
	run := func() (string, error) {
		output, err := exec.Command(program, "-cache", filepath.Join(folder, "cache"), "-directory", ca.Directory(), "-roots", roots, "-dns", ca.DNS(),
			"-for", "8760h", zone, wildcard).CombinedOutput()
		return string(output), err
	}
	printed, err := run()
	require.Error(t, err)
	assert.Contains(t, printed, `_validation-persist.example.test. IN TXT "acmetest.invalid; accounturi=`)
	assert.Equal(t, 1, strings.Count(printed, "IN TXT"), "one record for both")
	assert.Contains(t, printed, "; *.example.test: the record is missing")
	line, _, _ := strings.Cut(printed, "\n")
	_, quoted, _ := strings.Cut(line, "IN TXT ")
	value, err := strconv.Unquote(quoted)
	require.NoError(t, err)
	ca.SetTXT("_validation-persist.example.test", value)
	printed, err = run()
	require.NoError(t, err, printed)
	assert.Contains(t, printed, "; *.example.test: the record is there until ")
	assert.Zero(t, ca.Orders())
	assert.Equal(t, 1, ca.Accounts())
}
