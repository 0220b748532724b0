package interop

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
)

// profiles are our servers by their key, with the TLS 1.2 suites that they may offer, as OpenSSL
// and as the IANA call them.
var profiles = []struct {
	key           string
	openSSL, iana []string
}{
	{
		"ecdsa",
		[]string{"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"},
		[]string{"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"},
	},
	{
		"rsa",
		[]string{"ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"},
		[]string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"},
	},
}

// echoExample builds examples/echo, once.
var echoExample = sync.OnceValues(func() (path string, err error) {
	path = filepath.Join(certs.dir, "echo")
	if output, err := exec.Command("go", "build", "-o", path, "../examples/echo").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, output)
	}
	return path, nil
})

// scanned starts the echo example with the key of a profile and gives its port.
func scanned(t *testing.T, key string) (port uint16) {
	t.Helper()
	path, err := echoExample()
	require.NoError(t, err)
	port = needs.Port(t)
	example := command{
		args:  []string{path, "-cert", certs.file(key + ".crt"), "-key", certs.file(key + ".key"), "-port", fmt.Sprint(port)},
		limit: scanLimit,
	}.start(t)
	for {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			conn.Close()
			return port
		}
		select {
		case <-example.ended:
			t.Fatalf("the example has ended: %v", example.err)
		case <-time.After(tick):
		}
	}
}

// scanLimit bounds a scan, and the example that is scanned. testssl needs a minute or two.
const scanLimit = 6 * time.Minute

const suitesFound = "TLS 1.2 and 1.3, three suites each, all AEAD with forward secrecy"

// suites gives what a server must offer, "version suite" each. The three of TLS 1.3 do not depend
// on the key.
func suites(prefix string, tls12 []string) (all []string) {
	for _, suite := range tls12 {
		all = append(all, "TLSv1.2 "+suite)
	}
	for _, suite := range []string{"AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256"} {
		all = append(all, "TLSv1.3 "+prefix+suite)
	}
	return all
}

func TestSSLScan(t *testing.T) {
	needs.Long(t)
	t.Parallel()
	who := subject{name: "sslscan", role: "scanner"}
	defer func() { who.missing(t) }()
	needs.Program(t, "sslscan")
	who.version = version(t, `(\d+\.\S+)`, "sslscan", "--version")
	for _, profile := range profiles {
		t.Run(profile.key, func(t *testing.T) {
			port := scanned(t, profile.key)
			out := command{args: []string{"sslscan", "--no-colour", "--sni-name=localhost", fmt.Sprintf("127.0.0.1:%d", port)}}.start(t).finish()
			var protocols, found, groups []string
			for _, m := range regexp.MustCompile(`(?m)^((?:SSL|TLS)v\S+) +enabled`).FindAllStringSubmatch(out, -1) {
				protocols = append(protocols, m[1])
			}
			for _, m := range regexp.MustCompile(`(?m)^(?:Preferred|Accepted) +(\S+) +\d+ bits +(\S+)`).FindAllStringSubmatch(out, -1) {
				found = append(found, m[1]+" "+m[2])
			}
			for _, m := range regexp.MustCompile(`(?m)^TLSv1\.3 +\d+ bits +(\w+)`).FindAllStringSubmatch(out, -1) {
				groups = append(groups, m[1])
			}
			assert.ElementsMatch(t, []string{"TLSv1.2", "TLSv1.3"}, protocols)
			assert.ElementsMatch(t, suites("TLS_", profile.openSSL), found)
			assert.ElementsMatch(t, []string{"x25519", "secp256r1", "secp384r1", "secp521r1"}, groups) // of those that its OpenSSL knows
			assert.Contains(t, out, "Server supports TLS Fallback SCSV")
			assert.Contains(t, out, "Session renegotiation not supported")
			assert.NotRegexp(t, "(?m)[^t] vulnerable", out)
			who.add(profile.key, "", suitesFound)
		})
	}
}

func TestNmap(t *testing.T) {
	needs.Long(t)
	t.Parallel()
	who := subject{name: "nmap ssl-enum-ciphers", role: "scanner"}
	defer func() { who.missing(t) }()
	needs.Program(t, "nmap")
	who.version = version(t, `Nmap version (\S+)`, "nmap", "--version")
	for _, profile := range profiles {
		t.Run(profile.key, func(t *testing.T) {
			port := scanned(t, profile.key)
			out := command{args: []string{"nmap", "-n", "-Pn", "-sT", "--script", "ssl-enum-ciphers", "-p", fmt.Sprint(port), "127.0.0.1"}}.start(t).finish()
			var protocol string
			var found []string
			for _, m := range regexp.MustCompile(`(?m)^\| +(?:((?:SSL|TLS)v[0-9.]+): *|(TLS_\w+) \(.*\) - (\w))$`).FindAllStringSubmatch(out, -1) {
				if m[1] != "" {
					protocol = m[1]
					continue
				}
				found = append(found, protocol+" "+m[2])
				assert.Equal(t, "A", m[3], "the grade of %s", m[2])
			}
			assert.ElementsMatch(t, suites("TLS_AKE_WITH_", profile.iana), found)
			assert.NotContains(t, out, "warnings:")
			who.add(profile.key, "", suitesFound)
		})
	}
}

// excused are the findings of testssl above INFO that stay, with their reasons.
var excused = map[string]string{
	"engine_problem":     "about the scanner's own OpenSSL, which has no GOST",
	"TLS_session_ticket": "crypto/tls says a lifetime of 7 days, the most that RFC 8446 allows, and has no option for it; the manager declines tickets after MaxSessionAge, 24 hours if unset, and changes its keys every day",
	"cert_revocation":    "the test's private CA has neither a CRL nor an OCSP address; revocation lists are given as files",
	"DNS_CAArecord":      "localhost has no DNS records",
}

func TestTestSSL(t *testing.T) {
	needs.Long(t)
	t.Parallel()
	who := subject{name: "testssl.sh", role: "scanner"}
	defer func() { who.missing(t) }()
	needs.Program(t, "testssl")
	who.version = version(t, `testssl\S* +(?:version )?(\d\S+)`, "testssl", "--version")
	for _, profile := range profiles {
		t.Run(profile.key, func(t *testing.T) {
			t.Parallel()
			who.add(profile.key, "", testSSL(t, profile.key))
		})
	}
}

// testSSL scans a profile and gives what it found.
func testSSL(t *testing.T, key string) string {
	port := scanned(t, key)
	report := filepath.Join(t.TempDir(), "report.json")
	// Protocols, the server's defaults with its certificate, forward secrecy, and all
	// vulnerabilities. The suites are what the two other scanners are for, and headers are the
	// application's.
	command{
		args: []string{"testssl", "--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1", "--nodns", "none", "-p", "-S", "-f", "-U",
			"--add-ca", certs.file("root.crt"), "--jsonfile", report, fmt.Sprintf("localhost:%d", port)},
		limit: scanLimit,
	}.start(t).finish()
	var findings []struct{ ID, Severity, Finding string }
	content, err := os.ReadFile(report)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(content, &findings))
	seen := map[string]string{}
	var stays []string
	for _, f := range findings {
		seen[f.ID] = f.Finding
		if slices.Contains([]string{"DEBUG", "INFO", "OK"}, f.Severity) {
			continue
		}
		assert.Contains(t, excused, f.ID, "%s: %s", f.Severity, f.Finding)
		stays = append(stays, fmt.Sprintf("%s %s (%s)", f.Severity, f.ID, excused[f.ID]))
	}
	for id, want := range map[string]string{"SSLv3": "not offered", "TLS1": "not offered", "TLS1_1": "not offered", "TLS1_2": "offered", "TLS1_3": "offered"} {
		assert.True(t, strings.HasPrefix(seen[id], want), "%s is %q", id, seen[id])
	}
	for _, id := range []string{"heartbleed", "CCS", "ticketbleed", "ROBOT", "secure_renego", "secure_client_renego", "CRIME_TLS", "SWEET32", "FREAK", "DROWN", "LOGJAM", "LUCKY13", "RC4"} {
		assert.Contains(t, seen, id, "it was not tested")
	}
	return fmt.Sprintf("%d findings, above INFO only: %s", len(findings), strings.Join(stays, "; "))
}
