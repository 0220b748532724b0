//go:build linux

package chaos

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/needs"
)

// redisServer is Debian's, on a socket, with what it was told on disk.
type redisServer struct {
	t      *testing.T
	folder string
	socket string
	cmd    *exec.Cmd
}

func startRedis(t *testing.T) *redisServer {
	t.Helper()
	folder, err := os.MkdirTemp("", "redis") // a socket's path is short
	require.NoError(t, err)
	r := &redisServer{t: t, folder: folder, socket: filepath.Join(folder, "s")}
	t.Cleanup(func() {
		r.kill()
		os.RemoveAll(folder)
	})
	r.start()
	return r
}

func (r *redisServer) start() {
	r.t.Helper()
	r.cmd = exec.Command(needs.Program(r.t, "redis-server"), "--port", "0", "--unixsocket", r.socket, "--dir", r.folder, "--appendonly", "yes", "--appendfsync", "always")
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(r.t, r.cmd.Start())
	require.Eventually(r.t, func() bool {
		conn, err := net.Dial("unix", r.socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, 20*time.Second, 10*time.Millisecond)
}

func (r *redisServer) get(t *testing.T, key string) string {
	t.Helper()
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: r.socket})
	defer client.Close()
	keys, err := client.Keys(t.Context(), key).Result()
	require.NoError(t, err)
	require.Len(t, keys, 1)
	value, err := client.Get(t.Context(), keys[0]).Result()
	require.NoError(t, err)
	return value
}

func (r *redisServer) kill() {
	if r.cmd == nil { // it is not installed
		return
	}
	r.cmd.Process.Signal(syscall.SIGCONT)
	r.cmd.Process.Kill()
	r.cmd.Wait()
}

// A Redis that is slow, that hangs, and that is gone, while a certificate ends: what is served is
// renewed all the same, and stored when Redis is back.
func TestRedis(t *testing.T) {
	for name, fault := range map[string]struct {
		begin, end func(r *redisServer, line *slowLine)
	}{
		"slow (half a second for each answer)": {
			func(_ *redisServer, line *slowLine) { line.delay.Store(int64(500 * time.Millisecond)) },
			func(_ *redisServer, line *slowLine) { line.delay.Store(0) },
		},
		"hanging": {
			func(r *redisServer, _ *slowLine) { r.cmd.Process.Signal(syscall.SIGSTOP) },
			func(r *redisServer, _ *slowLine) { r.cmd.Process.Signal(syscall.SIGCONT) },
		},
		"dead": {
			func(r *redisServer, _ *slowLine) { r.kill() },
			func(r *redisServer, _ *slowLine) { r.start() },
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "Redis "+name)
			server := startRedis(t)
			line := newSlowLine(t, server)
			const lifetime = time.Minute
			ca := w.acme(lifetime)
			w.setup.Redis, w.setup.RenewBefore = line.socket, lifetime/2
			w.begin()
			w.await("the certificate", 20*time.Second, serving)
			first, err := w.visitPublic()
			require.NoError(t, err)

			fault.begin(server, line)
			began := time.Now()
			last := first
			for last == first {
				require.Less(t, time.Since(began), 2*lifetime, "no renewal: %s", &w.log)
				last, err = w.visitPublic()
				require.NoError(t, err, "the public name is not served any more: %s", &w.log)
				pause()
			}
			if name[0] != 's' {
				w.visible("cache-failed, order-failed, Status.ACME.Unsaved", func(r report) bool { return r.happened(certmanager.CacheFailed, "") && ordered(r).Unsaved })
			} else {
				w.row.visible = "nothing: slow is no error"
			}
			fault.end(server, line)
			ended := time.Now()
			w.await("that it is stored", 40*time.Second, func(r report) bool { return !ordered(r).Unsaved })
			w.arrived(time.Since(ended), 20*time.Second)
			assert.Contains(t, server.get(t, "acme:"+publicName+"+127.0.0.1-????????"), "CERTIFICATE")
			assert.LessOrEqual(t, ca.Orders(), 5)
			w.more = 10 // connections to the CA and to Redis that are kept
			w.finish()
		})
	}
}

// slowLine is between the server and its Redis.
type slowLine struct {
	socket string
	delay  atomic.Int64 // nanoseconds, of every answer
}

func newSlowLine(t *testing.T, server *redisServer) *slowLine {
	t.Helper()
	line := &slowLine{socket: server.socket + "line"}
	listener, err := net.Listen("unix", line.socket)
	require.NoError(t, err)
	var running sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	running.Go(func() {
		for client, err := listener.Accept(); err == nil; client, err = listener.Accept() {
			behind, err := net.Dial("unix", server.socket)
			if err != nil {
				client.Close()
				continue
			}
			mu.Lock()
			open = append(open, client, behind)
			mu.Unlock()
			running.Go(func() { io.Copy(behind, client); behind.Close() })
			running.Go(func() {
				defer client.Close()
				for b := make([]byte, 1<<16); ; {
					n, err := behind.Read(b)
					if err != nil {
						return
					}
					time.Sleep(time.Duration(line.delay.Load()))
					client.Write(b[:n])
				}
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return line
}
