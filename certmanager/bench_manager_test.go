package certmanager_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// BenchmarkLookupBeside compares with what programs use otherwise: autocert with the certificate in
// memory, and a map behind a lock. One name, the ClientHello of crypto/tls.
func BenchmarkLookupBeside(b *testing.B) {
	const name = "host.example.test"
	ca := tlstest.NewCA(b)
	pair := ca.Issue(b, tlstest.Leaf{Names: []string{name}, NotAfter: time.Now().AddDate(1, 0, 0)})
	var hello *tls.ClientHelloInfo
	capture := &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		hello = h
		return nil, context.Canceled
	}}
	connect(b, capture, ca.ClientConfig(b, name))
	require.NotNil(b, hello)

	m := newManager(b, certmanager.Options{Source: leaf(pair)})
	auto := &autocert.Manager{Prompt: autocert.AcceptTOS, HostPolicy: autocert.HostWhitelist(name), Cache: oneEntry(append(slices.Clone(pair.KeyPEM), pair.CertPEM...))}
	served := m.GetCertificate()
	locked := lockedMap{certs: map[string]*tls.Certificate{name: &served}}
	for _, way := range []struct {
		name string
		get  func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	}{{"ours", m.GetCertificateFunc()}, {"autocert", auto.GetCertificate}, {"mutex", locked.get}} {
		first, err := way.get(hello)
		require.NoError(b, err, way.name)
		require.Equal(b, pair.Leaf.Raw, first.Certificate[0])
		b.Run(way.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := way.get(hello); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(way.name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := way.get(hello); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// oneEntry is an autocert.Cache of one certificate.
type oneEntry []byte

func (c oneEntry) Get(context.Context, string) ([]byte, error) { return c, nil }
func (c oneEntry) Put(context.Context, string, []byte) error   { return nil }
func (c oneEntry) Delete(context.Context, string) error        { return nil }

// lockedMap is the usual way to replace certificates.
type lockedMap struct {
	mu    sync.RWMutex
	certs map[string]*tls.Certificate
}

func (l *lockedMap) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.certs[strings.ToLower(hello.ServerName)], nil
}

// BenchmarkReload reads, checks, rehearses and publishes a folder of 1,000 pairs of which one
// changed, or all.
func BenchmarkReload(b *testing.B) {
	const n = 1000
	for _, changed := range []int{1, n} {
		b.Run(fmt.Sprintf("pairs=%d/changed=%d", n, changed), func(b *testing.B) {
			ca := tlstest.NewCA(b)
			dir := b.TempDir()
			var versions [2][n]*tlstest.Pair
			for i := range n {
				versions[0][i] = ca.Issue(b, tlstest.Leaf{Names: []string{fmt.Sprintf("host%d.test", i)}})
				versions[1][i] = versions[0][i]
				if i < changed {
					versions[1][i] = ca.Issue(b, tlstest.Leaf{Names: []string{fmt.Sprintf("host%d.test", i)}})
				}
				versions[0][i].Files(b, dir, fmt.Sprintf("host%d", i))
			}
			// The benchmark alone reloads.
			m := newManager(b, certmanager.Options{Source: quiet{certmanager.Files{Dir: dir}}, PollInterval: time.Hour})
			round := 0
			for b.Loop() {
				b.StopTimer()
				round++
				for i := range changed {
					versions[round%2][i].Files(b, dir, fmt.Sprintf("host%d", i))
				}
				b.StartTimer()
				if err := m.Reload(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			require.Equal(b, uint64(round+1), m.Status().Generation)
		})
	}
}

// quiet is a source whose files cause no events.
type quiet struct{ certmanager.Source }

func (quiet) Watch(ctx context.Context, _ func(), _ func(certmanager.Event)) error {
	<-ctx.Done()
	return nil
}

// BenchmarkFileChangeToServed is the time from the last byte of a new pair to the first lookup that
// finds it. The settle time is most of it.
func BenchmarkFileChangeToServed(b *testing.B) {
	ca := tlstest.NewCA(b)
	dir := b.TempDir()
	cert, key := ca.Issue(b, tlstest.Leaf{}).Files(b, dir, "tls")
	m := newManager(b, certmanager.Options{Source: certmanager.Files{Cert: cert, Key: key}, PollInterval: time.Hour})
	get, hello := m.GetCertificateFunc(), &tls.ClientHelloInfo{ServerName: "localhost"}
	var times []time.Duration
	for b.Loop() {
		next := ca.Issue(b, tlstest.Leaf{})
		next.Files(b, dir, "tls")
		start := time.Now()
		for {
			if served, err := get(hello); err == nil && served.Leaf.Equal(next.Leaf) {
				break
			}
			time.Sleep(50 * time.Microsecond)
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	for _, percent := range []int{50, 90, 99, 100} {
		at := times[min(len(times)-1, len(times)*percent/100)]
		b.ReportMetric(float64(at.Microseconds())/1000, fmt.Sprintf("p%d-ms", percent))
	}
}

func BenchmarkTrack(b *testing.B) {
	ca := tlstest.NewCA(b)
	m := newManager(b, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(b, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(), RootCAs: ca.Pool()}})
	got := connect(b, m.ServerTLS(), m.ClientTLS("localhost"))
	require.NoError(b, got.serverErr)
	for name, state := range map[string]tls.ConnectionState{"client": got.server, "server": got.client} {
		b.Run("peer="+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m.Track(&state, nil, nil)()
			}
		})
	}
}
