package meta_test

import (
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/meta"
)

// lines is a logger of the user's own.
type lines struct {
	mu  sync.Mutex
	got []gen.MessageLog
}

func (l *lines) Log(m gen.MessageLog) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = append(l.got, m)
}

func (l *lines) Terminate() {}

// fields gives those of the first line that has the text, or nil.
func (l *lines) fields(text string) map[string]any {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.got {
		if strings.Contains(m.Format, text) {
			fields := map[string]any{}
			for _, f := range m.Fields {
				fields[f.Name] = f.Value
			}
			return fields
		}
	}
	return nil
}

// Log lines have fields, by which a log is searched, and one process does not show those of
// another.
func TestLogFields(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		h, log := newHost(t), &lines{}
		require.NoError(t, h.LoggerAdd("lines", log))
		a := h.spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager})
		eventually(t, func() bool { return log.fields("listening on") != nil }, "the server says where")
		assert.Equal(t, map[string]any{"listener": addr}, log.fields("listening on"))

		stranger := dialTCP(t, addr)
		from := stranger.LocalAddr().String()
		io.WriteString(stranger, "GET / HTTP/1.1\r\n\r\n")
		eventually(t, func() bool { return log.fields("refused") != nil }, "a stranger is refused")
		assert.Equal(t, map[string]any{
			"listener": addr, "remote": from, "owner": a.pid.String(), "refused": "not TLS",
		}, log.fields("refused"))

		peer := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		a.send(id, "nonsense")
		eventually(t, func() bool { return log.fields("unknown message") != nil }, "what the owner does wrong is said")
		assert.Equal(t, map[string]any{"remote": peer.LocalAddr().String(), "owner": a.pid.String()}, log.fields("unknown message"))
	})
}
