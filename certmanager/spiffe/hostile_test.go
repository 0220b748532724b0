package spiffe_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/spiffe"
)

// Whatever an agent gives, the last good answer stays, the reason is told, and the next good one is
// used.
func TestAnswersThatCannotBeUsed(t *testing.T) {
	d, other := newDomain(t, "a.example"), newDomain(t, "b.example")
	good := func() *workload.X509SVIDResponse { return d.svid(t, []string{"/web"}) }
	edited := func(edit func(*workload.X509SVIDResponse)) *workload.X509SVIDResponse {
		answer := good()
		edit(answer)
		return answer
	}
	a := newAgent(t, good())
	m, log := start(t, &spiffe.Source{Addr: a.addr(), ID: "spiffe://a.example/web"}, certmanager.TrustDomain("a.example"))
	for name, test := range map[string]struct {
		answer *workload.X509SVIDResponse
		says   string
	}{
		"no SVID":     {&workload.X509SVIDResponse{}, "no SVIDs in response"},
		"only others": {d.svid(t, []string{"/db", "/mail"}), "no X509-SVID spiffe://a.example/web; it sent 2 others"},
		"another's key": {edited(func(r *workload.X509SVIDResponse) {
			r.Svids[0].X509SvidKey = d.svid(t, []string{"/x"}).Svids[0].X509SvidKey
		}), "private key"},
		"garbage":            {edited(func(r *workload.X509SVIDResponse) { r.Svids[0].X509Svid = []byte("garbage") }), "certificate"},
		"no bundle":          {edited(func(r *workload.X509SVIDResponse) { r.Svids[0].Bundle = nil }), "the agent sent no CA of a.example"},
		"a federated's junk": {edited(func(r *workload.X509SVIDResponse) { r.FederatedBundles["spiffe://b.example"] = []byte("junk") }), "malformed certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			before := m.GetCertificate().Leaf.SerialNumber
			a.give(test.answer)
			eventually(t, func() bool { return log.contains(test.says) }, "it is told")
			assert.Equal(t, before, m.GetCertificate().Leaf.SerialNumber)
			require.NoError(t, talk(t, m.ServerTLS(), m.ClientTLS("")))
			a.give(good())
			eventually(t, func() bool { return m.GetCertificate().Leaf.SerialNumber.Cmp(before) != 0 }, "the next")
		})
	}
	peer := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{other.issue(t, "/x").Certificate()}}
	require.Error(t, talk(t, m.ServerTLS(), peer))
}

// An SVID that has ended already is not put in service.
func TestEndedSVID(t *testing.T) {
	d := newDomain(t, "a.example")
	a := newAgent(t, d.svid(t, []string{"/web"}))
	m, log := start(t, &spiffe.Source{Addr: a.addr()}, certmanager.TrustDomain("a.example"))
	before := m.GetCertificate().Leaf.SerialNumber
	a.give(d.answer(t, d.leaf("/web").Expired()))
	eventually(t, func() bool { return log.contains("event=rejected") }, "it is told")
	assert.Equal(t, before, m.GetCertificate().Leaf.SerialNumber)
	require.NoError(t, talk(t, m.ServerTLS(), m.ClientTLS("")))
}

// An agent that stays away: what it gave is in service until it ends, which is an event, and no
// longer. When it is back all is well.
func TestSVIDThatIsNotRenewed(t *testing.T) {
	d := newDomain(t, "a.example")
	leaf := d.leaf("/web")
	leaf.NotAfter = time.Now().Add(3 * time.Second)
	a := newAgent(t, d.answer(t, leaf))
	m, log := start(t, &spiffe.Source{Addr: a.addr()}, certmanager.TrustDomain("a.example"))
	require.NoError(t, talk(t, m.ServerTLS(), m.ClientTLS("")))
	a.stop()
	eventually(t, func() bool { return log.contains("event=expired") }, "it has ended")
	assert.True(t, log.contains("the agent has sent no other"))
	require.Error(t, talk(t, m.ServerTLS(), m.ClientTLS("")))
	a.give(d.svid(t, []string{"/web"}))
	a.start(t)
	eventually(t, func() bool { return talk(t, m.ServerTLS(), m.ClientTLS("")) == nil }, "it is back")
}

// An SVID may come with the intermediates that lead to its bundle.
func TestSVIDOfAnIntermediate(t *testing.T) {
	d := newDomain(t, "a.example")
	sub := &domain{d.name, d.ca.Intermediate(t)}
	answer := sub.svid(t, []string{"/web"})
	answer.Svids[0].X509Svid = append(answer.Svids[0].X509Svid, sub.ca.Certificate().Raw...)
	answer.Svids[0].Bundle = d.ca.Certificate().Raw
	a := newAgent(t, answer)
	m, _ := start(t, &spiffe.Source{Addr: a.addr()}, certmanager.TrustDomain("a.example"))
	require.NoError(t, talk(t, m.ServerTLS(), m.ClientTLS("")))
}

// An agent that sends one answer after the other does not keep the last one from service.
func TestManyAnswers(t *testing.T) {
	d := newDomain(t, "a.example")
	a := newAgent(t, d.svid(t, []string{"/web"}))
	m, _ := start(t, &spiffe.Source{Addr: a.addr()}, certmanager.TrustDomain("a.example"))
	var last *workload.X509SVIDResponse
	for range 200 {
		last = d.svid(t, []string{"/web"})
		a.give(last)
	}
	leaf, err := x509.ParseCertificate(last.Svids[0].X509Svid)
	require.NoError(t, err)
	eventually(t, func() bool { return m.GetCertificate().Leaf.Equal(leaf) }, "the last")
	require.NoError(t, talk(t, m.ServerTLS(), m.ClientTLS("")))
}

// Connections of a federated domain end when the federation does.
func TestFederationEndsForOpenConnections(t *testing.T) {
	ours, theirs := newDomain(t, "a.example"), newDomain(t, "b.example")
	a := newAgent(t, ours.svid(t, []string{"/db"}, theirs))
	m, _ := start(t, &spiffe.Source{Addr: a.addr()}, certmanager.TrustDomain("a.example", "b.example"))
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	listener := m.NewListener(plain)
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				conn.Read(make([]byte, 1))
			}()
		}
	}()
	dial := func(d *domain) *tls.Conn {
		conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{d.issue(t, "/x").Certificate()}})
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	stays, goes := dial(ours), dial(theirs)
	eventually(t, func() bool { return m.Status().Connections == 2 }, "both are open")
	a.give(ours.svid(t, []string{"/db"}))
	goes.SetReadDeadline(time.Now().Add(30 * time.Second))
	_, err = goes.Read(make([]byte, 1))
	require.Error(t, err)
	assert.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	stays.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, err = stays.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}
