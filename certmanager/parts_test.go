package certmanager_test

import (
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// A CA is replaced in one source, and before the removal of the old one counts another source
// becomes unusable. The old CA goes all the same.
func TestRemovalDespiteAnotherSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before, after := tlstest.NewCA(t), tlstest.NewCA(t)
		cas := func(all ...*tlstest.CA) *certmanager.Material {
			m := &certmanager.Material{}
			for _, ca := range all {
				m.ClientCAs = append(m.ClientCAs, ca.Certificate())
			}
			return m
		}
		certificate := func(l tlstest.Leaf) *certmanager.Material {
			return &certmanager.Material{Certificates: []certmanager.Certificate{{Certificate: before.Issue(t, l).Certificate(), Origin: "test"}}}
		}
		bundle, pair := &pushed{material: cas(before)}, &pushed{material: certificate(tlstest.Leaf{})}
		m := newManager(t, certmanager.Options{Source: certmanager.Sources{bundle, pair}})
		synctest.Wait() // the sources are watched
		trusts := func(want ...*tlstest.CA) {
			t.Helper()
			var all []string
			for _, ca := range m.Status().ClientCAs {
				all = append(all, ca.Serial)
			}
			var wanted []string
			for _, ca := range want {
				wanted = append(wanted, certmanager.NewCertificateInfo(ca.Certificate(), "").Serial)
			}
			assert.ElementsMatch(t, wanted, all)
		}
		bundle.put(cas(after))
		time.Sleep(time.Second)
		trusts(before, after)
		pair.put(certificate(tlstest.Leaf{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}))
		time.Sleep(time.Minute)
		trusts(after)
		assert.True(t, m.Status().Drift)
	})
}

// A bundle that is written in two steps loses no CA in between, whatever another source has.
func TestTwoStepsDespiteAnotherSource(t *testing.T) {
	for name, fault := range map[string]func(*certmanager.Certificate, *tlstest.Pair){
		"expired": func(c *certmanager.Certificate, expired *tlstest.Pair) { c.Certificate = expired.Certificate() },
		"another key": func(c *certmanager.Certificate, expired *tlstest.Pair) {
			c.Certificate.PrivateKey = expired.Certificate().PrivateKey
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			one, two := tlstest.NewCA(t), tlstest.NewCA(t)
			cas := func(all ...*tlstest.CA) *certmanager.Material {
				m := &certmanager.Material{}
				for _, ca := range all {
					m.ClientCAs = append(m.ClientCAs, ca.Certificate())
				}
				return m
			}
			good := certmanager.Certificate{Certificate: one.Issue(t, tlstest.Leaf{}).Certificate(), Origin: "test"}
			bundle, pair := &pushed{material: cas(one)}, &pushed{material: &certmanager.Material{Certificates: []certmanager.Certificate{good}}}
			m := newManager(t, certmanager.Options{Source: certmanager.Sources{bundle, pair}})
			synctest.Wait() // the sources are watched
			bad := good
			fault(&bad, one.Issue(t, tlstest.Leaf{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}))
			pair.put(&certmanager.Material{Certificates: []certmanager.Certificate{bad}})
			time.Sleep(time.Minute)
			assert.True(t, m.Status().Drift, name)
			peer := track(m, connectPipe(m.ServerTLS(), one.MutualClientConfig(t, "localhost", tlstest.Leaf{})).ok(t).server)
			defer peer.release()
			bundle.put(cas(two))
			time.Sleep(time.Second)
			bundle.put(cas(one, two))
			time.Sleep(time.Minute)
			peer.open(t, name)
			assert.Len(t, m.Status().ClientCAs, 2, name)
		})
	}
}

// Three sources change at random: to good contents, to contents that cannot be put in service, and
// for about a second to contents without a CA. In the end the good ones are in service, and no
// connection was closed whose CA was missing only for that second.
func TestSourcesAtRandom(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			issuer := tlstest.NewCA(t)
			sources := make([]*randomSource, 3)
			var all certmanager.Sources
			for i := range sources {
				sources[i] = &randomSource{t: t, r: r, issuer: issuer, origin: strconv.Itoa(i), cas: []*tlstest.CA{tlstest.NewCA(t), tlstest.NewCA(t), tlstest.NewCA(t)}}
				sources[i].change("good")
				all = append(all, sources[i])
			}
			m := newManager(t, certmanager.Options{Source: all})
			var peers []*tracked
			for _, s := range sources {
				client := s.cas[0].MutualClientConfig(t, "localhost", tlstest.Leaf{})
				client.InsecureSkipVerify = true
				peers = append(peers, track(m, connectPipe(m.ServerTLS(), client).ok(t).server))
			}
			for began := time.Now(); time.Since(began) < 11*time.Second; { // losses are put in service after 15 s of changes
				s := sources[r.IntN(len(sources))]
				if s.change([]string{"good", "good", "expired", "another key", "lost"}[r.IntN(5)]) == "lost" {
					time.Sleep(time.Duration(r.IntN(1200)) * time.Millisecond)
					s.put(s.last)
				}
				time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
			}
			time.Sleep(2 * time.Minute)
			for i, s := range sources {
				peers[i].open(t, fmt.Sprintf("seed %d, source %d", seed, i))
				peers[i].release()
				if s.good {
					s.inService(m.Status(), fmt.Sprintf("seed %d, source %d", seed, i))
				}
			}
		})
	}
}

// randomSource is a source with one certificate and some of its CAs, always with the first.
type randomSource struct {
	pushed
	t      *testing.T
	r      *rand.Rand
	issuer *tlstest.CA
	origin string
	cas    []*tlstest.CA
	last   *certmanager.Material // other than "lost"
	good   bool                  // it can be put in service
}

func (s *randomSource) change(what string) string {
	if what == "lost" {
		lost := *s.last
		lost.ClientCAs = append(slices.Clone(lost.ClientCAs[1:]), tlstest.NewCA(s.t).Certificate())
		s.put(&lost)
		return what
	}
	leaf := tlstest.Leaf{}
	if what == "expired" {
		leaf.NotBefore, leaf.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	cert := certmanager.Certificate{Certificate: s.issuer.Issue(s.t, leaf).Certificate(), Origin: s.origin}
	if what == "another key" {
		cert.PrivateKey = s.issuer.Issue(s.t, leaf).Key
	}
	s.last, s.good = &certmanager.Material{Certificates: []certmanager.Certificate{cert}}, what == "good"
	for i, ca := range s.cas {
		if i == 0 || s.r.IntN(2) == 0 {
			s.last.ClientCAs = append(s.last.ClientCAs, ca.Certificate())
		}
	}
	s.put(s.last)
	return what
}

// inService requires that the last contents of the source, and no other CA of its, are in service.
func (s *randomSource) inService(status certmanager.Status, text string) {
	infos := func(cas []*x509.Certificate) (all []string) {
		for _, ca := range cas {
			all = append(all, certmanager.NewCertificateInfo(ca, "").Fingerprint)
		}
		return all
	}
	var every []*x509.Certificate
	for _, ca := range s.cas {
		every = append(every, ca.Certificate())
	}
	var cas []string
	for _, info := range status.ClientCAs {
		if slices.Contains(infos(every), info.Fingerprint) {
			cas = append(cas, info.Fingerprint)
		}
	}
	assert.ElementsMatch(s.t, infos(s.last.ClientCAs), cas, text)
	leaf, err := x509.ParseCertificate(s.last.Certificates[0].Certificate.Certificate[0])
	require.NoError(s.t, err)
	assert.True(s.t, slices.ContainsFunc(status.Certificates, func(info certmanager.CertificateInfo) bool {
		return info.Fingerprint == certmanager.NewCertificateInfo(leaf, "").Fingerprint
	}), text)
}
