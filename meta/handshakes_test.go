package meta_test

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"io"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// slowRand is a tls.Config.Rand: crypto/tls reads it while a handshake computes. Its reads wait for
// release.
type slowRand struct {
	inside, most atomic.Int32
	release      chan struct{}
}

// slowed makes the handshakes with config wait for open, which the end of the test calls too.
func slowed(t *testing.T, config *tls.Config) (c *slowRand, open func()) {
	c = &slowRand{release: make(chan struct{})}
	open = sync.OnceFunc(func() { close(c.release) })
	t.Cleanup(open)
	config.SessionTicketsDisabled = true // else the first handshake makes their keys, and all wait for it
	config.Rand = c
	return c, open
}

func (c *slowRand) Read(b []byte) (int, error) {
	if now := c.inside.Add(1); now > c.most.Load() {
		c.most.Store(now)
	}
	<-c.release
	c.inside.Add(-1)
	return rand.Read(b)
}

// However many clients come at once, no more than MaxHandshakes compute, and all are served. A
// higher limit lets those in who wait, a lower one ends none.
func TestMaxHandshakes(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		const crowd, limit = 20, 3
		config := m.manager.(manager).server.Clone()
		a := newHost(t).spawn(nil)
		c, open := slowed(t, config)
		server, addr := a.listen(meta.TCPServerOptions{CertManager: manager{server: config}, MaxHandshakes: limit})
		shaken := make(chan error, crowd)
		for range crowd {
			peer := tls.Client(dialTCP(t, addr), m.client)
			go func() { shaken <- peer.Handshake() }()
		}
		eventually(t, func() bool { return a.inspect(server)["connections establishing"] == strconv.Itoa(crowd) }, "all are there")
		eventually(t, func() bool { return a.inspect(server)["handshakes"] == strconv.Itoa(limit) }, "the places are taken")
		before := a.call(server, meta.MessageTCPLimits{MaxHandshakes: limit + 2}).(meta.MessageTCPLimits)
		assert.Equal(t, limit, before.MaxHandshakes)
		eventually(t, func() bool { return a.inspect(server)["handshakes"] == strconv.Itoa(limit+2) }, "more places are taken")
		eventually(t, func() bool { return c.inside.Load() == limit+2 }, "they compute")
		a.call(server, meta.MessageTCPLimits{MaxHandshakes: 1})
		assert.Equal(t, strconv.Itoa(limit+2), a.inspect(server)["handshakes"])
		open()
		for range crowd {
			require.NoError(t, <-shaken)
			expect[meta.MessageTCPConnect](a)
		}
		assert.EqualValues(t, limit+2, c.most.Load())
		assert.Equal(t, "0", a.inspect(server)["handshakes"])
		assert.Equal(t, "1", a.inspect(server)["max handshakes"])

		standard, _ := a.listen(meta.TCPServerOptions{CertManager: m.manager})
		a.call(server, meta.MessageTCPLimits{MaxHandshakes: -1})
		for _, id := range []gen.Alias{standard, server} {
			assert.Equal(t, strconv.Itoa(2*runtime.GOMAXPROCS(0)), a.inspect(id)["max handshakes"])
		}
	})
}

// remoteKey is a key in a module that takes its time.
type remoteKey struct {
	crypto.Signer
	wait func()
}

func (k remoteKey) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	k.wait()
	return k.Signer.Sign(rand, digest, opts)
}

// Handshakes that wait, in whatever callback, leave their places to those that need not.
func TestWaitingHandshakesHoldNoPlace(t *testing.T) {
	const slow = "slow.example.test" // the name for which they wait
	for callback, edit := range map[string]func(config *tls.Config, wait func(name string)){
		"GetConfigForClient": func(config *tls.Config, wait func(string)) {
			config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				wait(hello.ServerName)
				return nil, nil
			}
		},
		"GetCertificate": func(config *tls.Config, wait func(string)) {
			pair := config.Certificates[0]
			config.Certificates = nil
			config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				wait(hello.ServerName)
				return &pair, nil
			}
		},
		"inner GetCertificate": func(config *tls.Config, wait func(string)) {
			inner := config.Clone()
			inner.Certificates = nil
			inner.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				wait(hello.ServerName)
				return &config.Certificates[0], nil
			}
			config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return inner, nil }
		},
		"VerifyConnection": func(config *tls.Config, wait func(string)) {
			config.VerifyConnection = func(state tls.ConnectionState) error {
				wait(state.ServerName)
				return nil
			}
		},
		"a slow key": func(config *tls.Config, wait func(string)) {
			fast, late := config.Clone(), config.Clone()
			late.Certificates = []tls.Certificate{config.Certificates[0]}
			late.Certificates[0].PrivateKey = remoteKey{config.Certificates[0].PrivateKey.(crypto.Signer), func() { wait(slow) }}
			config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				if hello.ServerName == slow {
					return late, nil
				}
				return fast, nil
			}
		},
	} {
		t.Run(callback, func(t *testing.T) {
			tlsModes(t, func(t *testing.T, m mode) {
				const crowd = 8
				release := make(chan struct{})
				open := sync.OnceFunc(func() { close(release) })
				waiting := make(chan struct{}, crowd)
				config := m.manager.(manager).server.Clone()
				edit(config, func(name string) {
					if name == slow {
						waiting <- struct{}{}
						<-release
					}
				})
				a := newHost(t).spawn(echo)
				t.Cleanup(open)
				server, addr := a.listen(meta.TCPServerOptions{CertManager: manager{server: config}, MaxHandshakes: 1})
				client := m.client.Clone()
				client.ServerName, client.InsecureSkipVerify = slow, true
				shaken := make(chan error, crowd)
				for range crowd {
					peer := tls.Client(dialTCP(t, addr), client)
					go func() { shaken <- peer.Handshake() }()
				}
				for range crowd {
					<-waiting
				}
				talk(t, m.dial(t, addr))
				expect[meta.MessageTCPConnect](a)
				assert.Equal(t, "0", a.inspect(server)["handshakes"])
				open()
				for range crowd {
					assert.NoError(t, <-shaken)
					expect[meta.MessageTCPConnect](a)
				}
			})
		})
	}
}

// The CA that validates a name is answered while handshakes compute on all places.
func TestChallengeNeedsNoPlace(t *testing.T) {
	m := modes()[2]
	config := m.manager.(manager).server.Clone()
	answer := config.Clone()
	answer.NextProtos = []string{"acme-tls/1"}
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hello.SupportedProtos, "acme-tls/1") {
			return answer, nil
		}
		return nil, nil
	}
	a := newHost(t).spawn(nil)
	_, open := slowed(t, config)
	server, addr := a.listen(meta.TCPServerOptions{CertManager: manager{server: config}, MaxHandshakes: 1})
	shaken := make(chan error, 1)
	peer := tls.Client(dialTCP(t, addr), m.client)
	go func() { shaken <- peer.Handshake() }()
	eventually(t, func() bool { return a.inspect(server)["handshakes"] == "1" }, "the place is taken")
	client := m.client.Clone()
	client.NextProtos = []string{"acme-tls/1"}
	require.NoError(t, tls.Client(dialTCP(t, addr), client).Handshake())
	eventually(t, func() bool { return a.inspect(server)["acme challenges"] == "1" }, "it is answered")
	open()
	require.NoError(t, <-shaken)
	expect[meta.MessageTCPConnect](a)
}

// Who is in its handshake when the server is drained is served, and told at once that this ends.
func TestDrainDuringHandshake(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		server, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager})
		conn := dialTCP(t, addr)
		eventually(t, func() bool { return a.inspect(server)["connections establishing"] == "1" }, "it is accepted")
		a.do(func(o *owner) { assert.NoError(t, o.MonitorAlias(server)) })
		a.send(server, meta.MessageTCPDrain{Timeout: time.Minute})
		require.Equal(t, server, expect[gen.MessageDownAlias](a).Alias)
		peer := m.secure(t, conn)
		id := expect[meta.MessageTCPConnect](a).ID
		assert.Equal(t, id, expect[meta.MessageTCPDraining](a).ID)
		peer.Close()
		expect[meta.MessageTCPDisconnect](a)
		a.quiet()
	})
}
