package certmanager_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// counted counts how often files are read.
type counted struct {
	certmanager.Files
	loads *atomic.Int32
}

func (c counted) Load(ctx context.Context, previous *certmanager.Material) (*certmanager.Material, error) {
	c.loads.Add(1)
	return c.Files.Load(ctx, previous)
}

// What another program writes beside the certificates is not ours, nor is it read.
func TestBusyFolder(t *testing.T) {
	ca := tlstest.NewCA(t)
	for name, files := range map[string]func(dir, cert, key string) certmanager.Files{
		"pair":   func(_, cert, key string) certmanager.Files { return certmanager.Files{Cert: cert, Key: key} },
		"folder": func(dir, _, _ string) certmanager.Files { return certmanager.Files{Dir: dir} },
		"link": func(dir, cert, key string) certmanager.Files {
			linked := filepath.Join(t.TempDir(), "linked")
			require.NoError(t, os.Symlink(dir, linked))
			return certmanager.Files{Cert: filepath.Join(linked, filepath.Base(cert)), Key: filepath.Join(linked, filepath.Base(key))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			pair := ca.Issue(t, tlstest.Leaf{})
			cert, key := pair.Files(t, dir, "tls")
			source := counted{files(dir, cert, key), new(atomic.Int32)}
			m := newManager(t, certmanager.Options{PollInterval: time.Hour, Source: source})
			eventually(t, "the look when watching begins", func() bool { return source.loads.Load() >= 2 })
			before := source.loads.Load()
			log := filepath.Join(dir, "access.log")
			for range 300 {
				require.NoError(t, os.WriteFile(log, []byte("one more line\n"), 0o600))
				require.NoError(t, os.Rename(log, log+".1"))
			}
			assert.Equal(t, before, source.loads.Load())
			next := ca.Issue(t, tlstest.Leaf{})
			require.NoError(t, tlstest.RenameOver(dir, map[string][]byte{"tls.crt": next.CertPEM, "tls.key": next.KeyPEM}, nil))
			eventually(t, "the next pair", func() bool { return m.GetCertificate().Leaf.Equal(next.Leaf) })
			assert.LessOrEqual(t, source.loads.Load(), before+3)
		})
	}
}

// A certificate that is emptied and put back as it was is in service all along. The rejection is
// over then, and the log says so.
func TestBackToWhatIsInService(t *testing.T) {
	ca := tlstest.NewCA(t)
	dir := t.TempDir()
	pair := ca.Issue(t, tlstest.Leaf{})
	cert, key := pair.Files(t, dir, "tls")
	m := newManager(t, certmanager.Options{PollInterval: time.Hour, Source: certmanager.Files{Cert: cert, Key: key}})
	events := collect(m)
	for i := range 2 {
		require.NoError(t, os.WriteFile(cert, nil, 0o600))
		eventually(t, "the rejection", func() bool { return len(events(certmanager.Rejected)) == i+1 })
		assert.True(t, m.Status().Drift)
		assert.Contains(t, m.Status().LastError, cert)
		require.NoError(t, os.WriteFile(cert, pair.CertPEM, 0o600))
		eventually(t, "the end of the rejection", func() bool { return len(events(certmanager.Loaded)) == i+1 && !m.Status().Drift })
		assert.Equal(t, uint64(1), m.Status().Generation)
	}
}

// twoCAs is what a test of trust in two steps starts with: a manager of two CAs, and a peer of
// each.
func twoCAs(t *testing.T) (first, second *tlstest.CA, source *edited, m *certmanager.Manager, peers [2]*tracked) {
	t.Helper()
	first, second = tlstest.NewCA(t), tlstest.NewCA(t)
	source = &edited{notices: true, material: certmanager.Material{
		Certificates: []certmanager.Certificate{{Certificate: first.Issue(t, tlstest.Leaf{}).Certificate(), Origin: "server"}},
		ClientCAs:    []*x509.Certificate{first.Certificate(), second.Certificate()},
	}}
	m = newManager(t, certmanager.Options{PollInterval: time.Hour, Source: source})
	for i, ca := range []*tlstest.CA{first, second} {
		client := first.ClientConfig(t, "localhost")
		client.Certificates = []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}
		c := connectPipe(m.ServerTLS(), client)
		require.NoError(t, c.serverErr)
		peers[i] = track(m, c.server)
	}
	return first, second, source, m, peers
}

// A bundle that is written in two steps keeps the peers of the part that comes second.
func TestBundleInTwoSteps(t *testing.T) {
	for _, pause := range []time.Duration{0, 99 * time.Millisecond, 250 * time.Millisecond, time.Second, 1400 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			first, second, source, m, peers := twoCAs(t)
			third := tlstest.NewCA(t)
			source.set(func(m *certmanager.Material) { m.ClientCAs = []*x509.Certificate{first.Certificate()} })
			time.Sleep(pause)
			source.set(func(m *certmanager.Material) {
				m.ClientCAs = []*x509.Certificate{first.Certificate(), third.Certificate(), second.Certificate()}
			})
			time.Sleep(200 * time.Millisecond)
			assert.Len(t, m.Status().ClientCAs, 3, "what is given does not wait, after %v", pause)
			time.Sleep(time.Minute)
			peers[0].open(t, "its CA was there all along")
			peers[1].open(t, "its CA came back")
			peers[0].release()
			peers[1].release()
		})
	}
}

// What is gone for longer than a writer pauses is gone: its peers have to go.
func TestRemovedCA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, _, source, m, peers := twoCAs(t)
		source.set(func(m *certmanager.Material) { m.ClientCAs = []*x509.Certificate{first.Certificate()} })
		time.Sleep(1400 * time.Millisecond)
		peers[1].open(t, "the rest of the file may be on its way")
		time.Sleep(200 * time.Millisecond)
		assert.Len(t, m.Status().ClientCAs, 1)
		require.ErrorIs(t, peers[1].evicted(t), certmanager.ErrUntrusted)

		// Also where the source never comes to rest, or somebody asks for it.
		source.set(func(m *certmanager.Material) { m.ClientCAs = []*x509.Certificate{tlstest.NewCA(t).Certificate()} })
		for range 200 {
			time.Sleep(100 * time.Millisecond)
			source.set(func(*certmanager.Material) {})
		}
		require.ErrorIs(t, peers[0].evicted(t), certmanager.ErrUntrusted)
		source.set(func(m *certmanager.Material) { m.ClientCAs = []*x509.Certificate{first.Certificate()} })
		require.NoError(t, m.Reload(t.Context()))
		assert.Equal(t, first.Certificate().Subject.String(), m.Status().ClientCAs[0].Subject)
	})
}

// So does a part of a list, and the list of one of two CAs of one name.
func TestPartsOfAListInTwoSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, _, source, m, peers := twoCAs(t)
		part := func(tag byte) *x509.RevocationList {
			data, err := first.GenerateCRL(tlstest.CRL{Extensions: []pkix.Extension{
				{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 3, 0x80 | tag, 1, 0xff}},
			}})
			require.NoError(t, err)
			return parseCRL(t, data)
		}
		namesake := tlstest.NewCA(t, func(template *x509.Certificate) { template.Subject = first.Certificate().Subject })
		users, cas := part(1), part(2)
		all := []*x509.RevocationList{users, cas, parseCRL(t, first.CRL(t)), parseCRL(t, namesake.CRL(t))}
		source.set(func(m *certmanager.Material) {
			m.CRLs, m.CRLIssuers = all, []*x509.Certificate{namesake.Certificate()}
		})
		time.Sleep(200 * time.Millisecond)
		require.Len(t, m.Status().CRLs, len(all))
		for i := range all {
			source.set(func(m *certmanager.Material) { m.CRLs = slices.Delete(slices.Clone(all), i, i+1) })
			time.Sleep(time.Second)
			assert.Len(t, m.Status().CRLs, len(all))
			source.set(func(m *certmanager.Material) { m.CRLs = all })
			time.Sleep(time.Minute)
			assert.Len(t, m.Status().CRLs, len(all))
		}
		source.set(func(m *certmanager.Material) { m.CRLs = []*x509.RevocationList{users} })
		time.Sleep(2 * time.Second)
		assert.Len(t, m.Status().CRLs, 1)
		for _, p := range peers {
			p.release()
		}
	})
}

// A revocation takes trust away, and does not wait: no half of a list is signed. A list that is
// gone gives trust, and waits: the rest of the file may be on its way.
func TestRevocationDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, _, source, m, peers := twoCAs(t)
		config := first.MutualClientConfig(t, "localhost", tlstest.Leaf{})
		c := connectPipe(m.ServerTLS(), config)
		require.NoError(t, c.serverErr)
		revoked := track(m, c.server)
		source.set(func(material *certmanager.Material) {
			material.CRLs = []*x509.RevocationList{parseCRL(t, first.CRL(t, c.server.PeerCertificates[0]))}
		})
		time.Sleep(200 * time.Millisecond)
		require.ErrorIs(t, revoked.evicted(t), certmanager.ErrRevoked)
		peers[0].open(t, "another certificate of the CA")

		source.set(func(material *certmanager.Material) { material.CRLs = nil })
		time.Sleep(time.Second)
		assert.Len(t, m.Status().CRLs, 1)
		time.Sleep(time.Second)
		assert.Empty(t, m.Status().CRLs)
		for _, p := range peers {
			p.release()
		}
	})
}

// Where one CA takes the place of another, its peers get in at once, and those of the other go when
// the source has been at rest.
func TestCAIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, _, source, m, peers := twoCAs(t)
		third := tlstest.NewCA(t)
		client := first.ClientConfig(t, "localhost")
		client.Certificates = []tls.Certificate{third.Issue(t, tlstest.Leaf{}).Certificate()}
		source.set(func(m *certmanager.Material) {
			m.ClientCAs = []*x509.Certificate{first.Certificate(), third.Certificate()}
		})
		time.Sleep(200 * time.Millisecond)
		require.NoError(t, connectPipe(m.ServerTLS(), client).serverErr)
		peers[1].open(t, "the rest of the file may be on its way")
		time.Sleep(1400 * time.Millisecond)
		require.ErrorIs(t, peers[1].evicted(t), certmanager.ErrUntrusted)
		peers[0].open(t, "its CA was there all along")
		assert.Equal(t, uint64(3), m.Status().Generation)
		time.Sleep(time.Hour)
		assert.Equal(t, uint64(3), m.Status().Generation)
		peers[0].release()
	})
}

// What a source warns of is reported once and is in Status as long as it stays.
func TestWarningsOfASource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, source, m, peers := twoCAs(t)
		events := collect(m)
		aside := errors.New("x.pem: set aside")
		for range 2 {
			source.set(func(m *certmanager.Material) { m.Warnings = []error{aside} })
			time.Sleep(time.Second)
		}
		require.Len(t, events(certmanager.Warning), 1)
		assert.Equal(t, "source", events(certmanager.Warning)[0].Reason)
		assert.ErrorIs(t, events(certmanager.Warning)[0].Err, aside)
		assert.Equal(t, []string{"x.pem: set aside"}, m.Status().Warnings)
		source.set(func(m *certmanager.Material) { m.Warnings = nil })
		time.Sleep(time.Second)
		assert.Empty(t, m.Status().Warnings)
		assert.Equal(t, uint64(1), m.Status().Generation, "what is served is the same")
		for _, p := range peers {
			p.release()
		}
	})
}

// A source of somebody's own may be wrong in any way: what is in service stays.
func TestSourcesThatAreWrong(t *testing.T) {
	for name, load := range map[string]func() (*certmanager.Material, error){
		"nothing": func() (*certmanager.Material, error) { return nil, nil },
		"panic":   func() (*certmanager.Material, error) { panic("a parser cannot bear it") },
		"nil certificate": func() (*certmanager.Material, error) {
			return &certmanager.Material{ClientCAs: []*x509.Certificate{nil}}, nil
		},
		"nil list": func() (*certmanager.Material, error) {
			return &certmanager.Material{CRLs: []*x509.RevocationList{nil}}, nil
		},
		"empty chain": func() (*certmanager.Material, error) {
			return &certmanager.Material{Certificates: []certmanager.Certificate{{}}}, nil
		},
		"nil part": func() (*certmanager.Material, error) {
			return &certmanager.Material{Parts: []*certmanager.Material{nil}}, nil
		},
		"nil warning": func() (*certmanager.Material, error) { return &certmanager.Material{Warnings: []error{nil}}, nil },
		"no key": func() (*certmanager.Material, error) {
			return &certmanager.Material{Certificates: []certmanager.Certificate{{Certificate: tls.Certificate{Certificate: [][]byte{{1}}}}}}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			ca := tlstest.NewCA(t)
			pair := ca.Issue(t, tlstest.Leaf{})
			source := &replaced{load: func() (*certmanager.Material, error) { return leaf(pair).Load(t.Context(), nil) }}
			m := newManager(t, certmanager.Options{PollInterval: time.Hour, Source: source})
			source.load = load
			require.Error(t, m.Reload(t.Context()))
			assert.True(t, m.GetCertificate().Leaf.Equal(pair.Leaf))
			assert.True(t, m.Status().Drift)
			_, err := certmanager.New(certmanager.Options{Source: source})
			require.Error(t, err)
		})
	}
}

// A nil pointer is a source too, and a panic of Watch is reported.
func TestNilSource(t *testing.T) {
	_, err := certmanager.New(certmanager.Options{Source: (*edited)(nil)})
	require.ErrorIs(t, err, certmanager.ErrInvalid)
}

// replaced is a source whose Load a test replaces, while none runs.
type replaced struct {
	load func() (*certmanager.Material, error)
}

func (r *replaced) Load(context.Context, *certmanager.Material) (*certmanager.Material, error) {
	return r.load()
}

func (r *replaced) Watch(context.Context, func(), func(certmanager.Event)) error { return nil }

// Machines whose sources give the same ticket keys resume each other's sessions, until the keys
// change. A key of zeros is rejected.
func TestTicketKeysOfASource(t *testing.T) {
	ca := tlstest.NewCA(t)
	material := certmanager.Material{
		Certificates: []certmanager.Certificate{{Certificate: ca.Issue(t, tlstest.Leaf{}).Certificate()}},
		TicketKeys:   [][32]byte{{1}},
	}
	sources := []*edited{{material: material}, {material: material}}
	var managers []*certmanager.Manager
	for _, source := range sources {
		managers = append(managers, newManager(t, certmanager.Options{PollInterval: time.Hour, Source: source}))
	}
	client := ca.ClientConfig(t, "localhost")
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	resumes := func(m *certmanager.Manager) bool { return connect(t, m.ServerTLS(), client).ok(t).server.DidResume }
	assert.False(t, resumes(managers[0]))
	assert.True(t, resumes(managers[1]))
	assert.True(t, resumes(managers[0]))

	sources[1].set(func(m *certmanager.Material) { m.TicketKeys = [][32]byte{{}} })
	require.ErrorIs(t, managers[1].Reload(t.Context()), certmanager.ErrInvalid)
	assert.True(t, resumes(managers[1]))
	sources[1].set(func(m *certmanager.Material) { m.TicketKeys = [][32]byte{{2}} })
	require.NoError(t, managers[1].Reload(t.Context()))
	assert.False(t, resumes(managers[1]))
}

// Functions of a material are asked where no certificate covers a name; one of them is enough to
// serve.
func TestFunctionsOfASource(t *testing.T) {
	ca := tlstest.NewCA(t)
	named := func(name string) certmanager.Material {
		cert := ca.Issue(t, tlstest.Leaf{Names: []string{name}}).Certificate()
		return certmanager.Material{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if hello.ServerName != name {
				return nil, errors.New("not mine")
			}
			return &cert, nil
		}}
	}
	m := newManager(t, certmanager.Options{Source: certmanager.Sources{&edited{material: named("a.test")}, &edited{material: named("b.test")}}})
	for _, name := range []string{"a.test", "b.test"} {
		connect(t, m.ServerTLS(), ca.ClientConfig(t, name)).ok(t)
	}
	connect(t, m.ServerTLS(), ca.ClientConfig(t, "c.test")).refused(t)
}
