package meta_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
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

// all gives the lines with their fields.
func (l *lines) all() (all []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.got {
		text := fmt.Sprintf(m.Format, m.Args...)
		for _, f := range m.Fields {
			text += fmt.Sprint(" ", f.Name, "=", f.Value)
		}
		all = append(all, text)
	}
	return all
}

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
		fields := log.fields("refused")
		assert.NotEmpty(t, fields["connection"])
		delete(fields, "connection")
		assert.Equal(t, map[string]any{
			"listener": addr, "local": addr, "remote": from, "owner": a.pid.String(), "refused": "not TLS",
		}, fields)

		peer := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		a.send(id, "nonsense")
		eventually(t, func() bool { return log.fields("unknown message") != nil }, "what the owner does wrong is said")
		fields = log.fields("unknown message")
		assert.Equal(t, id.String(), fields["connection"])
		assert.Equal(t, peer.LocalAddr().String(), fields["remote"])
		assert.Equal(t, addr, fields["listener"])
		assert.Equal(t, a.pid.String(), fields["owner"])
	})
}

// The lines of one connection, its begin, end and refusal, have the same fields in the node's log
// and in that of the manager. The lines of a connection's life are there with the level Debug
// alone.
func TestLogLinesJoin(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			ca := tlstest.NewCA(t)
			records := &jsonLines{}
			manager, err := certmanager.New(certmanager.Options{
				Source:     certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool()},
				ClientRule: certmanager.CommonName("alice"),
				Logger:     slog.New(slog.NewJSONHandler(records, nil)),
			})
			require.NoError(t, err)
			t.Cleanup(func() { manager.Close() })
			h, log := newHost(t), &lines{}
			require.NoError(t, h.LoggerAdd("lines", log))
			a := h.spawn(nil)
			_, addr := a.listen(meta.TCPServerOptions{CertManager: manager, ConnectionMeta: gen.MetaOptions{LogLevel: gen.LogLevelDebug}})

			dial := func(name string) *tls.Conn {
				config := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{CommonName: name})
				config.MinVersion, config.MaxVersion = version, version
				conn := tls.Client(dialTCP(t, addr), config)
				t.Cleanup(func() { conn.Close() })
				if err := conn.HandshakeContext(t.Context()); err == nil {
					go io.Copy(io.Discard, conn)
				}
				return conn
			}
			alice := dial("alice")
			id := expect[meta.MessageTCPConnect](a).ID
			eventually(t, func() bool { return log.fields("established") != nil }, "a line of the connection")
			began := log.fields("established")
			assert.Equal(t, map[string]any{
				"connection": id.String(), "listener": addr, "local": addr, "remote": alice.LocalAddr().String(), "owner": a.pid.String(),
				"peer": "CN=alice", "serial": began["serial"],
			}, began)
			assert.NotEmpty(t, began["serial"])
			require.NoError(t, manager.SetClientRule(certmanager.CommonName("bob")))
			expect[meta.MessageTCPDisconnect](a)
			eventually(t, func() bool { return log.fields("ended") != nil }, "a line of its end")
			assert.Equal(t, began, log.fields("ended"))
			evicted := records.await(t, "peer-evicted")
			assert.Equal(t, []any{id.String(), "CN=alice", began["serial"], addr, alice.LocalAddr().String()},
				[]any{evicted["connection"], evicted["peer"], evicted["serial"], evicted["local"], evicted["remote"]})

			dial("mallory")
			eventually(t, func() bool { return log.fields("refused") != nil }, "a line of the refusal")
			refused, event := log.fields("refused"), records.await(t, "peer-refused")
			assert.Equal(t, "CN=mallory", refused["peer"])
			for _, name := range []string{"connection", "peer", "serial", "local", "remote"} {
				assert.NotEmpty(t, refused[name], name)
				assert.Equal(t, refused[name], event[name], name)
			}
		})
	}
}

// A peer writes no lines of its own into the log, whatever stands in the names of its certificate,
// whether it is refused or let in without verification.
func TestNamesMakeNoLines(t *testing.T) {
	ca, unknown := tlstest.NewCA(t), tlstest.NewCA(t, func(template *x509.Certificate) { template.Subject.Organization = []string{"o\nforged by the issuer"} })
	manager, err := certmanager.New(certmanager.Options{Source: certmanager.Static{
		Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(),
	}})
	require.NoError(t, err)
	t.Cleanup(func() { manager.Close() })
	cert := unknown.Issue(t, tlstest.Leaf{CommonName: "m\nforged \x1b[31m"}).Certificate()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, insecure := range []bool{false, true} {
			h, log := newHost(t), &lines{}
			require.NoError(t, h.LoggerAdd("lines", log))
			a := h.spawn(nil)
			_, addr := a.listen(meta.TCPServerOptions{CertManager: manager, InsecureSkipVerify: insecure, ConnectionMeta: gen.MetaOptions{LogLevel: gen.LogLevelDebug}})
			config := ca.ClientConfig(t, "localhost")
			config.MaxVersion = version
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
			conn := tls.Client(dialTCP(t, addr), config)
			err := conn.HandshakeContext(t.Context())
			if insecure {
				require.NoError(t, err)
				assert.Equal(t, `CN=m\0Aforged \1B[31m`, expect[meta.MessageTCPConnect](a).Peer.Subject)
				conn.Close()
				eventually(t, func() bool { return log.fields("ended") != nil }, "the end is logged")
			} else {
				eventually(t, func() bool { return log.fields("refused") != nil }, "the refusal is logged")
			}
			for _, line := range log.all() {
				assert.NotContains(t, line, "\n")
				assert.NotContains(t, line, "\x1b")
			}
		}
	}
}

// Nor does the path of a unix socket, whether the peer has it itself or a trusted proxy tells it.
func TestPathsMakeNoLines(t *testing.T) {
	h, log, dir := newHost(t), &lines{}, t.TempDir()
	require.NoError(t, h.LoggerAdd("lines", log))
	a := h.spawn(nil)
	debug := gen.MetaOptions{LogLevel: gen.LogLevelDebug}
	a.listen(meta.TCPServerOptions{UnixPath: dir + "/s", ConnectionMeta: debug})
	local := &net.UnixAddr{Name: dir + "/m\nforged", Net: "unix"}
	conn, err := net.DialUnix("unix", local, &net.UnixAddr{Name: dir + "/s", Net: "unix"})
	require.NoError(t, err)
	assert.Equal(t, dir+`/m\0Aforged`, expect[meta.MessageTCPConnect](a).RemoteAddr.String())
	conn.Close()
	expect[meta.MessageTCPDisconnect](a)

	_, addr := a.listen(meta.TCPServerOptions{ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, ConnectionMeta: debug})
	port := portOf(t, addr)
	client := h.spawn(nil)
	client.connect(meta.TCPConnectionOptions{Host: "127.0.0.1", Port: port, Proxy: &meta.ProxyHeader{Source: local, Destination: &net.UnixAddr{Name: dir + "/s", Net: "unix"}}})
	assert.Equal(t, dir+`/m\0Aforged`, expect[meta.MessageTCPConnect](a).Peer.Addr.String())
	for _, line := range log.all() {
		assert.NotContains(t, line, "\n")
	}
}

// Nor do the names of a server, which stand in the error of a client that expects another.
func TestServerNamesMakeNoLines(t *testing.T) {
	ca := tlstest.NewCA(t)
	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Static{RootCAs: ca.Pool()}})
	require.NoError(t, err)
	t.Cleanup(func() { certs.Close() })
	theirs := manager{server: ca.ServerConfig(t, "m\nforged")}
	for name, m := range map[string]gen.CertManager{"certmanager": certs, "crypto/tls": modes()[2].manager} {
		t.Run(name, func(t *testing.T) {
			h, log := newHost(t), &lines{}
			require.NoError(t, h.LoggerAdd("lines", log))
			server, client := h.spawn(nil), h.spawn(nil)
			_, addr := server.listen(meta.TCPServerOptions{CertManager: theirs})
			connection, err := meta.CreateTCPConnection(meta.TCPConnectionOptions{Host: "127.0.0.1", Port: portOf(t, addr), CertManager: m, ServerName: "localhost"})
			require.NoError(t, err)
			client.do(func(o *owner) {
				_, err := o.SpawnMeta(connection, gen.MetaOptions{LogLevel: gen.LogLevelDebug})
				assert.NoError(t, err)
			})
			reason := expect[meta.MessageTCPDisconnect](client).Reason.Error()
			assert.NotContains(t, reason, "\n")
			if name == "certmanager" {
				assert.Contains(t, reason, `valid for m\0Aforged`)
			}
			for _, line := range log.all() {
				assert.NotContains(t, line, "\n")
			}
		})
	}
}

// jsonLines takes the output of a slog.JSONHandler.
type jsonLines struct {
	mu  sync.Mutex
	got []map[string]any
}

func (j *jsonLines) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var fields map[string]any
	err := json.Unmarshal(line, &fields)
	j.got = append(j.got, fields)
	return len(line), err
}

// await returns the first line of an event.
func (j *jsonLines) await(t *testing.T, event string) (line map[string]any) {
	eventually(t, func() bool {
		j.mu.Lock()
		defer j.mu.Unlock()
		for _, one := range j.got {
			if one["event"] == event {
				line = one
			}
		}
		return line != nil
	}, "the manager logs "+event)
	return line
}

// The lines of each connection of a Reconnect have the fields of that connection, and once.
func TestLogFieldsOfReconnecting(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		server := newLineServer(t, m)
		h, log := newHost(t), &lines{}
		require.NoError(t, h.LoggerAdd("lines", log))
		a := h.spawn(nil)
		id := a.connect(m.reconnecting(t, server.addr, meta.Reconnect{MinInterval: time.Millisecond, MaxInterval: time.Millisecond}))
		locals := map[any]bool{}
		for range 3 {
			locals[until(a, always[meta.MessageTCPConnect]).LocalAddr.String()] = true
			server.stop()
			until(a, always[meta.MessageTCPDisconnect])
			server.start()
		}
		a.send(id, meta.MessageTCPClose{})
		until(a, func(m meta.MessageTCPDisconnect) bool { return m.Retry.IsZero() })
		log.mu.Lock()
		defer log.mu.Unlock()
		seen := map[any]bool{}
		for _, line := range log.got {
			if !strings.HasSuffix(line.Format, "established") {
				continue
			}
			fields := map[string]any{}
			for _, f := range line.Fields {
				assert.NotContains(t, fields, f.Name)
				fields[f.Name] = f.Value
			}
			seen[fields["local"]] = true
		}
		assert.Subset(t, seen, locals)
	})
}
