package interop

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
)

// mailers upgrade a connection to examples/starttls, whose certificate they do not verify. After
// the upgrade they say something that the server answers, and QUIT.
var mailers = []struct {
	client string // its name in clients
	args   func(port uint16, tls string) []string
	input  string
	want   string
}{
	{
		client: "openssl s_client",
		args: func(port uint16, tls string) []string {
			return []string{"openssl", "s_client", "-starttls", "smtp", "-connect", fmt.Sprintf("localhost:%d", port), "-tls" + strings.Replace(tls, ".", "_", 1), "-quiet"}
		},
		input: "nonsense\r\nQUIT\r\n", want: `500 what\?`,
	},
	{
		client: "gnutls-cli",
		args: func(port uint16, tls string) []string {
			return []string{"gnutls-cli", "--starttls-proto=smtp", "--insecure", "--port", fmt.Sprint(port), "--priority=NORMAL:-VERS-ALL:+VERS-TLS" + tls, "localhost"}
		},
		input: "nonsense\r\nQUIT\r\n", want: `500 what\?`,
	},
	{
		client: "BoringSSL bssl",
		args: func(port uint16, tls string) []string {
			return []string{"bssl-tool", "client", "-starttls", "smtp", "-connect", fmt.Sprintf("localhost:%d", port), "-min-version", "tls" + tls, "-max-version", "tls" + tls}
		},
		input: "nonsense\r\nQUIT\r\n", want: `500 what\?`,
	},
	{
		client: "curl",
		args: func(port uint16, tls string) []string {
			return []string{"curl", "-sSv", "--insecure", "--ssl-reqd", "--tlsv" + tls, "--tls-max", tls, "-X", "NOOP", fmt.Sprintf("smtp://localhost:%d", port)}
		},
		want: `(?s)SSL connection using TLS.*> NOOP.*< 250 OK`,
	},
}

func TestStartTLS(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "starttls")
	needs.Program(t, "go")
	require.NoError(t, output("go", "build", "-o", binary, "../examples/starttls"))
	port := needs.Port(t)
	server := command{args: []string{binary, "-port", fmt.Sprint(port), "-cert", certs.file("server.crt"), "-key", certs.file("server.key")}, limit: 2 * time.Minute}.start(t)
	dial(t, server, port).Close()
	for _, m := range mailers {
		t.Run(m.client, func(t *testing.T) {
			who := subject{name: m.client, role: "client"}
			needs.Program(t, m.args(0, "")[0])
			for _, tls := range versions {
				t.Run("TLS "+tls, func(t *testing.T) {
					p := command{args: m.args(port, tls)}.start(t)
					fmt.Fprint(p.stdin, m.input)
					p.says(regexp.MustCompile("221 bye"))
					assert.Regexp(t, m.want, p.finish())
					secured := regexp.MustCompile(`is over TLS ` + regexp.QuoteMeta(tls))
					assert.Eventually(t, func() bool { return secured.MatchString(server.text()) }, testTimeout, tick)
					who.add("StartTLS", tls, "yes")
				})
			}
		})
	}
}
