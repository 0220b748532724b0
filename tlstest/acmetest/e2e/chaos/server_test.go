//go:build linux

package chaos

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/certmanager/rediscache"
	"github.com/ergotls/ergotls/internal/clock"
	"github.com/ergotls/ergotls/meta"
)

// setup is what a server is to do.
type setup struct {
	Addr string        // where it listens
	Dir  string        // of its files
	Poll time.Duration // of the manager
	Idle time.Duration // after which its connections end
	Deny string        // a limit of this user namespace that is 0 at first

	// Its ACME source, if it has one: the CA and its roots, and the cache, a folder or the socket
	// of a Redis.
	Directory, Roots, Cache, Redis string
	RenewBefore                    time.Duration
}

// report is what a server says about itself, in answer to every command.
type report struct {
	Err        string // why it cannot serve, or what it has lost at its end
	Status     certmanager.Status
	Stats      meta.ServerStats
	Events     []event // from its start on
	Goroutines int
	Heap       uint64 // in answer to "collect"
}

type event struct {
	Kind certmanager.Kind
	Text string
}

// happened says whether there was an event of a kind whose text has a part.
func (r report) happened(kind certmanager.Kind, part string) bool {
	for _, e := range r.Events {
		if e.Kind == kind && strings.Contains(e.Text, part) {
			return true
		}
	}
	return false
}

func (r report) kind(kind certmanager.Kind) (all []event) {
	for _, e := range r.Events {
		if e.Kind == kind {
			all = append(all, e)
		}
	}
	return all
}

// serve is the server's main function: it obeys the commands on its standard input until that ends.
func serve() {
	out := json.NewEncoder(os.Stdout)
	// A descriptor that is lost shows: no collection closes it before "collect".
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
	s := &server{}
	err := json.Unmarshal([]byte(os.Getenv(setupValue)), &s.setup)
	if err == nil {
		err = s.start()
	}
	if err != nil {
		out.Encode(report{Err: err.Error(), Events: s.events})
		os.Exit(1)
	}
	out.Encode(s.report())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		r := s.report()
		switch command, argument, _ := strings.Cut(in.Text(), " "); command {
		case "step":
			d, _ := time.ParseDuration(argument)
			clock.Step(d)
		case "allow":
			os.WriteFile("/proc/sys/user/"+argument, []byte("1000"), 0)
		case "collect":
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			r.Heap = m.HeapAlloc
		}
		out.Encode(r)
	}
	last := report{}
	s.stop()
	if err := goleak.Find(); err != nil {
		last.Err = err.Error()
	}
	out.Encode(last)
}

type server struct {
	setup   setup
	manager *certmanager.Manager
	tcp     gen.MetaBehavior
	node    gen.Node
	redis   *redis.Client

	mu     sync.Mutex
	events []event
}

func (s *server) start() (err error) {
	if s.setup.Deny != "" {
		if err := os.WriteFile("/proc/sys/user/"+s.setup.Deny, []byte("0"), 0); err != nil {
			return err
		}
	}
	source, err := s.source()
	if err != nil {
		return err
	}
	if s.manager, err = certmanager.New(certmanager.Options{Source: source, PollInterval: s.setup.Poll, Logger: slog.New(s)}); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", s.setup.Addr)
	if err != nil {
		return err
	}
	s.tcp, err = meta.CreateTCPServer(meta.TCPServerOptions{
		Listener: listener, CertManager: s.manager, WriteTimeout: 2 * time.Second, IdleTimeout: s.setup.Idle,
	})
	if err != nil {
		return err
	}
	s.node, err = ergo.StartNode("chaos@localhost", gen.NodeOptions{
		Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled},
		Log:     gen.LogOptions{DefaultLogger: gen.DefaultLoggerOptions{Output: os.Stderr}},
	})
	if err != nil {
		return err
	}
	_, err = s.node.Spawn(func() gen.ProcessBehavior { return &echo{server: s.tcp} }, gen.ProcessOptions{})
	return err
}

func (s *server) source() (certmanager.Source, error) {
	path := func(name string) string { return filepath.Join(s.setup.Dir, name) }
	files := certmanager.Files{Cert: path("server.crt"), Key: path("server.key"), ClientCAs: path("clients.pem")}
	if s.setup.Directory == "" {
		return files, nil
	}
	pem, err := os.ReadFile(s.setup.Roots)
	if err != nil {
		return nil, err
	}
	public := &acme.Source{Domains: []string{publicName}, Directory: s.setup.Directory, Roots: x509.NewCertPool(), Background: true, RenewBefore: s.setup.RenewBefore}
	public.Roots.AppendCertsFromPEM(pem)
	if s.setup.Redis != "" {
		s.redis = redis.NewClient(&redis.Options{Network: "unix", Addr: s.setup.Redis, ContextTimeoutEnabled: true})
		public.Cache = rediscache.New(s.redis, "acme:")
	} else {
		public.Cache = autocert.DirCache(s.setup.Cache)
	}
	return certmanager.Sources{files, public}, nil
}

func (s *server) stop() {
	s.node.Stop()
	s.manager.Close()
	if s.redis != nil {
		s.redis.Close()
	}
}

func (s *server) report() report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return report{Status: s.manager.Status(), Stats: meta.Stats(s.tcp), Events: s.events, Goroutines: runtime.NumGoroutine()}
}

// The server is the handler of its manager's log: what it says before New returns counts too.
func (s *server) Enabled(context.Context, slog.Level) bool { return true }
func (s *server) WithAttrs([]slog.Attr) slog.Handler       { return s }
func (s *server) WithGroup(string) slog.Handler            { return s }

func (s *server) Handle(_ context.Context, r slog.Record) error {
	e := event{Text: r.Message}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "event" {
			e.Kind = certmanager.Kind(a.Value.String())
		} else {
			e.Text += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		}
		return true
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
	fmt.Fprintln(os.Stderr, time.Now().Format("05.000"), e.Kind, e.Text)
	return nil
}

type echo struct {
	act.Actor
	server gen.MetaBehavior
}

func (e *echo) Init(...any) error {
	_, err := e.SpawnMeta(e.server, gen.MetaOptions{})
	return err
}

func (e *echo) HandleMessage(_ gen.PID, message any) error {
	if m, ok := message.(meta.MessageTCP); ok {
		_ = e.SendAlias(m.ID, m) // it may be gone
	}
	return nil
}
