package interop

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
)

// Java on TLS 1.2 writes on after a server has refused it: from a server that just closes it often hears of a reset or a broken
// pipe in place of the alert. From ours it hears the alert, every time.
func TestJavaHearsTheAlert(t *testing.T) {
	t.Parallel()
	needs.Program(t, "javac")
	const times = 100
	who := subject{name: "Java", role: "client"}
	for _, refusal := range refusals {
		t.Run(refusal.kind, func(t *testing.T) {
			server := listen(t, serverManager(t, true))
			s := session{port: server.port, tls: "1.2", client: refusal.client}
			run := java(t, "client", s)
			run.env = append(run.env, fmt.Sprintf("CONNECTIONS=%d", times))
			told := 0
			complaints := complaint.FindAllStringSubmatch(run.start(t).finish(), -1)
			require.Len(t, complaints, times)
			for _, c := range complaints {
				if assert.True(t, tells(c[1], refusal.kind, "1.2"), c[1]) {
					told++
				}
			}
			assert.Equal(t, fmt.Sprint(times), server.inspect()["handshake failures"])
			who.add("100 times "+refusal.kind, "1.2", fmt.Sprintf("%d of %d: %s", told, times, strings.TrimSpace(complaints[0][1])))
		})
	}
}
