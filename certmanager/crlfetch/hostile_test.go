package crlfetch_test

import (
	"compress/gzip"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// strange is a list of the CA with extensions, dated so that it is the newest.
func (w *world) strange(number int64, extensions ...pkix.Extension) []byte {
	w.t.Helper()
	now := time.Now().Add(-time.Hour).Add(time.Duration(number) * time.Second)
	data, err := w.ca.GenerateCRL(tlstest.CRL{Number: number, ThisUpdate: now, Extensions: extensions})
	require.NoError(w.t, err)
	return data
}

// A list that the CA has signed and that cannot be used takes the place of nothing either: neither
// in service nor in Dir, where it would keep the next start from working.
func TestListsThatCannotBeUsed(t *testing.T) {
	w := newWorld(t)
	w.web.put(w.list(1, w.alice))
	require.NoError(t, w.start(w.source()))
	require.False(t, w.in(w.alice))
	octets, err := asn1.Marshal(1)
	require.NoError(t, err)
	for name, test := range map[string]struct {
		extension pkix.Extension
		says      string
	}{
		"unknown critical extension": {pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: octets}, "1.2.3.4"},
		"delta":                      {pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: octets}, "delta list"},
		"malformed scope":            {pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: octets}, "distribution point is malformed"},
		"indirect":                   {pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 3, 0x84, 1, 0xff}}, "indirect list"},
	} {
		t.Run(name, func(t *testing.T) {
			w.web.put(w.strange(100, test.extension))
			w.eventually(func() bool { return w.told(test.says) }, "it is told")
			assert.False(t, w.in(w.alice), "still revoked")
			require.NoError(t, w.Close())
			require.NoError(t, w.start(w.source()), "Dir has the last good list")
			assert.False(t, w.in(w.alice))
			// What the wrapped source changes is not held up.
			w.web.put(w.list(1, w.alice))
		})
	}
}

// A server that says "not changed" to who has nothing is told so.
func TestNotModifiedFromTheStart(t *testing.T) {
	w := newWorld(t)
	w.web.fail(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusNotModified) })
	source := w.source()
	source.Required = true
	err := w.start(source)
	require.ErrorContains(t, err, "304 Not Modified")
	assert.NotContains(t, err.Error(), "%!")
}

// Compressed answers are read, and count against MaxSize by what they become.
func TestCompressed(t *testing.T) {
	w := newWorld(t)
	list := w.list(1, w.alice)
	compress := func(size int) func(http.ResponseWriter, *http.Request) {
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Encoding", "gzip")
			body := gzip.NewWriter(rw)
			defer body.Close()
			if size == 0 {
				body.Write(list)
			}
			zeros := make([]byte, 1<<20)
			for range size / len(zeros) {
				if _, err := body.Write(zeros); err != nil {
					return
				}
			}
		}
	}
	w.web.fail(compress(0))
	source := w.source()
	source.MaxSize = 1 << 20
	require.NoError(t, w.start(source))
	assert.False(t, w.in(w.alice))
	w.web.fail(compress(1 << 30))
	w.eventually(func() bool { return w.told("more than 1048576 bytes (MaxSize)") }, "a gigabyte of zeros")
	assert.False(t, w.in(w.alice))
}

// A server that sends a byte now and then does not keep a request longer than Timeout.
func TestTrickle(t *testing.T) {
	w := newWorld(t)
	list := w.list(1, w.alice)
	w.web.fail(func(rw http.ResponseWriter, r *http.Request) {
		for i := range list {
			if _, err := rw.Write(list[i : i+1]); err != nil {
				return
			}
			rw.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	source := w.source()
	source.Timeout = 100 * time.Millisecond
	require.NoError(t, w.start(source))
	w.eventually(func() bool { return w.told("deadline exceeded") }, "it is told")
	assert.True(t, w.in(w.alice), "there is no list")
	w.web.put(list)
	w.eventually(func() bool { return !w.in(w.alice) }, "it asks again")
}

// The address in a certificate that a peer shows is not asked.
func TestDistributionPointOfAPeer(t *testing.T) {
	w, theirs := newWorld(t), newWeb(t)
	sub := w.ca.Intermediate(t, func(c *x509.Certificate) { c.CRLDistributionPoints = []string{theirs.URL} })
	theirs.put(sub.CRL(t))
	w.web.put(w.list(1, w.alice))
	source := w.source()
	source.DistributionPoints = true
	require.NoError(t, w.start(source))
	require.True(t, w.in(sub.Issue(t, tlstest.Leaf{})))
	before := w.web.requests.Load()
	w.eventually(func() bool { return w.web.requests.Load() > before+3 }, "our list is asked for")
	assert.Zero(t, theirs.requests.Load())
}

// An older list than the one in Dir is refused after a restart too.
func TestOlderAfterRestart(t *testing.T) {
	w := newWorld(t)
	w.web.put(w.list(5, w.alice))
	require.NoError(t, w.start(w.source()))
	require.NoError(t, w.Close())
	w.web.put(w.list(4))
	require.NoError(t, w.start(w.source()))
	w.eventually(func() bool { return w.told("it is older") }, "it is told")
	assert.False(t, w.in(w.alice))
}

// What lies in Dir in place of a list is not read without a bound, and does not hold the start up.
func TestOddFileInDir(t *testing.T) {
	w := newWorld(t)
	w.web.put(w.list(1, w.alice))
	require.NoError(t, w.start(w.source()))
	require.NoError(t, w.Close())
	entries, err := os.ReadDir(w.dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	path := filepath.Join(w.dir, entries[0].Name())
	require.NoError(t, os.Truncate(path, 1<<40))
	require.NoError(t, w.start(w.source()))
	assert.False(t, w.in(w.alice), "it was fetched anew")
	require.NoError(t, w.Close())
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Less(t, info.Size(), int64(1<<20), "and written")
}

// A change of the wrapped source does not wait for a web server that does not answer.
func TestNewAddressThatHangs(t *testing.T) {
	w := newWorld(t)
	w.web.put(w.list(1, w.alice))
	hung := newWeb(t)
	hung.fail(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	sub := w.ca.Intermediate(t, func(c *x509.Certificate) { c.CRLDistributionPoints = []string{hung.URL} })
	dir := t.TempDir()
	path := func(name string) string { return dir + "/" + name }
	write := func(name string, data []byte) { require.NoError(t, tlstest.WriteFile(path(name), data, 0o600)) }
	cert, key := w.ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "tls")
	write("ca.crt", w.ca.PEM())
	source := w.source()
	source.DistributionPoints, source.Timeout = true, time.Minute
	source.Source = certmanager.Files{Cert: cert, Key: key, ClientCAs: path("ca.crt")}
	require.NoError(t, w.start(source))
	began := time.Now()
	serial := w.GetCertificate().Leaf.SerialNumber
	write("ca.crt", append(w.ca.PEM(), sub.PEM()...))
	w.ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "tls")
	w.eventually(func() bool { return w.GetCertificate().Leaf.SerialNumber.Cmp(serial) != 0 }, "the change")
	assert.Less(t, time.Since(began), 8*time.Second)
	assert.True(t, w.told("there is no revocation list of "+hung.URL), "it is told")
}

// Who is on the path can send another list that a CA has signed: that of another CA, or of other
// certificates. It does not take the place of the one in use.
func TestOtherListOnThePath(t *testing.T) {
	w := newWorld(t)
	other := tlstest.NewCA(t)
	namesake := tlstest.NewCA(t, func(template *x509.Certificate) { template.Subject = w.ca.Certificate().Subject })
	point := func(der ...byte) []pkix.Extension {
		return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: append([]byte{0x30, byte(len(der))}, der...)}}
	}
	const uri = "http://x/2"
	newer := func(ca *tlstest.CA, part []pkix.Extension) []byte {
		data, err := ca.GenerateCRL(tlstest.CRL{Number: 99, ThisUpdate: time.Now(), Extensions: part})
		require.NoError(t, err)
		return data
	}
	w.web.put(w.list(1, w.alice))
	source := w.source()
	source.Source = staticSource{ca: w.ca, cert: w.ca.Issue(t, tlstest.Leaf{}).Certificate(), more: []*x509.Certificate{other.Certificate(), namesake.Certificate()}}
	require.NoError(t, w.start(source))
	require.False(t, w.in(w.alice))
	for what, data := range map[string][]byte{
		"of another CA": newer(other, nil),
		"of a namesake": newer(namesake, nil),
		"of CAs":        newer(w.ca, point(0x82, 1, 0xff)),
		"of a part":     newer(w.ca, point(append([]byte{0xa0, 4 + byte(len(uri)), 0xa0, 2 + byte(len(uri)), 0x86, byte(len(uri))}, uri...)...)),
	} {
		before := w.web.requests.Load()
		w.web.put(data)
		w.eventually(func() bool { return w.web.requests.Load() > before+3 }, what)
		assert.False(t, w.in(w.alice), what)
	}
	assert.True(t, w.told("it is of another CA, or for other certificates"))
	w.web.put(w.list(100))
	w.eventually(func() bool { return w.in(w.alice) }, "the next list of the same")
}

// A password in an address is sent to the server, and is in no log line, event or status.
func TestPasswordInAddress(t *testing.T) {
	w := newWorld(t)
	list := w.list(1, w.alice)
	var down atomic.Bool
	w.web.fail(func(rw http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); down.Load() || password != "secret" {
			rw.WriteHeader(http.StatusForbidden)
			return
		}
		rw.Write(list)
	})
	source := w.source()
	source.URLs = []string{strings.Replace(source.URLs[0], "http://", "http://us:secret@", 1), "http://us:secret@127.0.0.1:1/other.crl"}
	require.NoError(t, w.start(source))
	assert.False(t, w.in(w.alice))
	down.Store(true)
	w.eventually(func() bool { return w.told("403 Forbidden") }, "the failure")
	assert.NotEmpty(t, w.Status().Warnings)
	assert.False(t, w.told("secret"), "log")
	assert.NotContains(t, fmt.Sprint(w.Status().Warnings, source.Lists()), "secret")
	require.NoError(t, w.Close())
	for _, address := range []string{"ftp://us:secret@127.0.0.1/", "http://us:secret#@127.0.0.1/"} {
		source = w.source()
		source.URLs = []string{address}
		err := w.start(source)
		require.ErrorContains(t, err, "is not an http or https address")
		assert.NotContains(t, err.Error(), "secret")
	}
}
