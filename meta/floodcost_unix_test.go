//go:build unix

package meta_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

const floodServer = "ERGOTLS_TEST_FLOOD_SERVER"

// usage is what the flooded server says of itself.
type usage struct {
	Addr       string
	Root       []byte
	CPU        time.Duration // of its process so far
	Heap       uint64        // after a collection
	Goroutines int
	Open       int // connections
}

// serveFloods is the flooded server, in a process of its own: it answers every line with its usage.
func serveFloods(t *testing.T) {
	ca := tlstest.NewCA(t)
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: "127.0.0.1", CertManager: manager{server: ca.ServerConfig(t, "localhost")}})
	require.NoError(t, err)
	h := newHost(t)
	a := h.spawn(func(o *owner, message any) bool { // keeps no message
		echo(o, message)
		return true
	})
	a.do(func(o *owner) { _, err = o.SpawnMeta(server, gen.MetaOptions{}) })
	require.NoError(t, err)
	out := json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var m runtime.MemStats
		var r syscall.Rusage
		require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
		runtime.GC()
		runtime.ReadMemStats(&m)
		stats := meta.Stats(server)
		require.NoError(t, out.Encode(usage{
			Addr: stats.Listen, Root: ca.PEM(), CPU: time.Duration(r.Utime.Nano() + r.Stime.Nano()), Heap: m.HeapAlloc,
			Goroutines: runtime.NumGoroutine(), Open: stats.Connections + stats.Establishing,
		}))
	}
}

// What a flood costs the server is not much more than honest peers cost that connect as often and
// send as many records, and when it is over nothing of it is left.
func TestFloodsCostLittle(t *testing.T) {
	if os.Getenv(floodServer) != "" {
		serveFloods(t)
		return
	}
	f := startFlooded(t)
	const visits = 10
	visitCost := f.measure(visits, func(conn net.Conn) int {
		f.hello(conn)
		return 0
	}).perVisit
	const many = 2000
	honest := f.measure(3, func(conn net.Conn) int {
		s := f.hello(conn)
		return f.send(conn, many, func() []byte { return s.seal(23, "x") })
	})
	recordCost := max(0, honest.perVisit-visitCost) / many
	t.Logf("an honest visit costs %v, an honest record %v", visitCost, recordCost)

	check := func(name string, visits int, visit func(conn net.Conn) (records int)) {
		t.Helper()
		got := f.measure(visits, visit)
		honest := visitCost + time.Duration(got.perVisitRecords)*recordCost
		t.Logf("%-55s %6d records, %10v a visit, %.1f times an honest one", name, got.perVisitRecords, got.perVisit, float64(got.perVisit)/float64(honest))
		assert.Less(t, got.perVisit, 12*honest, name) // asking for new keys, and getting them, was 6.5
	}
	for name, flood := range floods {
		check(name, visits, func(conn net.Conn) int {
			s := f.hello(conn)
			return f.send(conn, many, func() []byte { return flood(s) })
		})
	}
	for name, record := range handshakeFloods {
		check("instead of a handshake: "+name, visits, func(conn net.Conn) int {
			return f.send(conn, many, func() []byte { return []byte(record) })
		})
	}
	check("a ClientHello of 64 KiB, a byte in each record", 1, func(conn net.Conn) int {
		header := "\x01\x00\xff\xff"
		sent := 0
		return f.send(conn, 1<<16, func() []byte {
			sent++
			if sent <= len(header) {
				return []byte("\x16\x03\x03\x00\x01" + header[sent-1:sent])
			}
			return []byte("\x16\x03\x03\x00\x01x")
		})
	})
	// With a byte of progress in between they go on for ever, as TLS allows.
	for _, name := range []string{"empty records", "key updates", "key update requests", "alerts"} {
		flood := floods[name]
		check("a byte between each: "+name, 3, func(conn net.Conn) int {
			s := f.hello(conn)
			return 2 * f.send(conn, many, func() []byte { return append(flood(s), s.seal(23, "x")...) })
		})
	}
	check("a handshake that is broken off", visits, func(conn net.Conn) int {
		_, err := tlstest.ResetDuringHandshake(conn, f.config, testTimeout)
		assert.NoError(t, err)
		return 0
	})

	var last usage
	eventually(t, func() bool {
		last = f.ask()
		return last.Open == 0 && last.Goroutines <= f.first.Goroutines
	}, "nobody is left")
	t.Logf("heap %d KiB before, %d KiB after", f.first.Heap>>10, last.Heap>>10)
	assert.Less(t, last.Heap, f.first.Heap+1<<20, "memory is left")
}

// flooded is the test's end of the server.
type flooded struct {
	t      *testing.T
	in     io.Writer
	out    *json.Decoder
	first  usage // when it was warm
	config *tls.Config
}

// startAgain runs the test once more, in a process of its own with these variables, until the test
// ends.
func startAgain(t *testing.T, env ...string) (io.Writer, *json.Decoder) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=120s")
	cmd.Env, cmd.Stderr = append(os.Environ(), env...), os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	answers := json.NewDecoder(out)
	t.Cleanup(func() {
		in.Close()
		rest, _ := io.ReadAll(io.MultiReader(answers.Buffered(), out))
		assert.NoError(t, cmd.Wait(), "%s", rest)
	})
	return in, answers
}

func startFlooded(t *testing.T) *flooded {
	t.Helper()
	in, out := startAgain(t, floodServer+"=1")
	f := &flooded{t: t, in: in, out: out}
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(f.ask().Root))
	f.config = &tls.Config{RootCAs: roots, ServerName: "localhost"}
	f.measure(10, func(conn net.Conn) int { f.hello(conn); return 0 })
	f.first = f.ask()
	return f
}

func (f *flooded) ask() (u usage) {
	f.t.Helper()
	_, err := io.WriteString(f.in, "\n")
	require.NoError(f.t, err)
	require.NoError(f.t, f.out.Decode(&u))
	return u
}

// hello makes a handshake and an exchange.
func (f *flooded) hello(conn net.Conn) *sealer { return helloSealer(f.t, conn, f.config) }

// send sends records, and reads what comes back, until there were so many or the server ends it. A
// client that does not read would be held back.
func (f *flooded) send(conn net.Conn, most int, next func() []byte) (sent int) {
	read := make(chan struct{})
	go func() {
		defer close(read)
		io.Copy(io.Discard, conn)
	}()
	for ; sent < most; sent++ {
		if _, err := conn.Write(next()); err != nil {
			break
		}
	}
	conn.(*net.TCPConn).CloseWrite()
	<-read
	return sent
}

type cost struct {
	perVisit        time.Duration
	perVisitRecords int
}

// measure is what the server's process takes for visits, from the first to when the last has gone.
func (f *flooded) measure(visits int, visit func(conn net.Conn) (records int)) (c cost) {
	f.t.Helper()
	before, records := f.ask(), 0
	for range visits {
		conn := dialTCP(f.t, before.Addr)
		records += visit(conn)
		conn.Close()
	}
	after := f.ask()
	eventually(f.t, func() bool { after = f.ask(); return after.Open == 0 }, "they have gone")
	return cost{(after.CPU - before.CPU) / time.Duration(visits), records / visits}
}
