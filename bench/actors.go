package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// oursActors is a server with an actor for each connection. It is measured by -actors alone.
const oursActors = "ours, actors"

func init() { starters[oursActors] = startActors }

func startActors(j serverJob) (string, func(context.Context) error, error) {
	manager, err := newManager(j)
	if err != nil {
		return "", nil, err
	}
	var server gen.MetaBehavior
	if err := startNode(meta.ActorServer{
		Server:  meta.TCPServerOptions{Host: "127.0.0.1", CertManager: manager},
		Actor:   func() gen.ProcessBehavior { return &session{} },
		Started: func(s gen.MetaBehavior) { server = s },
	}.Process()); err != nil {
		return "", nil, err
	}
	return meta.Stats(server).Listen, manager.Reload, nil
}

// session is the actor of one connection.
type session struct{ echo }

func (s *session) Init(...any) error { return nil }

func (s *session) HandleMessage(from gen.PID, message any) error {
	if _, ended := message.(meta.MessageTCPDisconnect); ended {
		return gen.TerminateReasonNormal
	}
	return s.echo.HandleMessage(from, message)
}

const (
	activeClients = 100
	crowdSize     = 10_000 // connections of one process and one address of 127.0.0.0/8
	spareFiles    = 200    // open files of the server beside its connections
)

// crowdJob is the first line of the input of a process with idle clients.
type crowdJob struct {
	Addr, From string
	Roots      []byte // PEM
	Count      int
}

// holdCrowd opens connections, says so, and holds them until its input ends.
func holdCrowd(in io.Reader, out io.Writer) error {
	var j crowdJob
	input := json.NewDecoder(in)
	if err := input.Decode(&j); err != nil {
		return err
	}
	roots, err := pool(j.Roots)
	if err != nil {
		return err
	}
	c := &cell{job: job{Crowd: j.Count}, addr: j.Addr, from: &net.TCPAddr{IP: net.ParseIP(j.From)}, roots: roots, serverName: "localhost"}
	clients, err := c.dialAll(j.Count, frame)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(len(clients)); err != nil {
		return err
	}
	if err := input.Decode(new(any)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("unexpected input: %w", err)
	}
	return nil
}

// actors measures a server with so many connections, of which a hundred are active, first with
// plain crypto/tls and then with an actor for each.
func actors(s settings, out io.Writer) error {
	if limit := openFiles(); uint64(s.Actors)+spareFiles > limit {
		return fmt.Errorf("%d connections in one process need %d open files, and it may have %d: raise the hard limit (ulimit -Hn), or lower -actors",
			s.Actors, s.Actors+spareFiles, limit)
	}
	fmt.Fprintf(out, "%-14s %-12s %-10s %-22s %-12s %-22s %s\n", "", "connections", "opened in", "server CPU for each", "RSS of each", "100 active alone, p99", "among all, p50 and p99")
	for _, variant := range []string{raw, oursActors} {
		if err := actorsRow(s, variant, out); err != nil {
			return fmt.Errorf("%s: %w", variant, err)
		}
	}
	return nil
}

func actorsRow(s settings, variant string, out io.Writer) (err error) {
	c := &cell{job: job{Time: s.Time, Crowd: s.Actors}, serverName: "localhost"}
	if c.ca, err = tlstest.GenerateCA(); err != nil {
		return err
	}
	if err := c.startServer(serverJob{Variant: variant}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	base, err := c.base()
	if err != nil {
		return err
	}
	active, err := c.dialAll(activeClients, frame)
	if err != nil {
		return err
	}
	defer func() {
		for _, l := range active {
			l.below.Close()
		}
	}()
	alone, err := c.measure(echoing(active, frame, frame, false))
	if err != nil {
		return err
	}
	before, err := c.ask(request{Do: "stats"})
	if err != nil {
		return err
	}
	begin := time.Now()
	leave, err := c.joinCrowd(s.Actors - len(active))
	defer leave()
	if err != nil {
		return err
	}
	took := time.Since(begin)
	after, err := c.ask(request{Do: "stats"})
	if err != nil {
		return err
	}
	idle, err := c.ask(request{Do: "gc"})
	if err != nil {
		return err
	}
	among, err := c.measure(echoing(active, frame, frame, false))
	if err != nil {
		return err
	}
	n := float64(s.Actors)
	fmt.Fprintf(out, "%-14s %-12d %-10s %-22s %-12s %-22s %s and %s\n", variant, s.Actors, took.Round(10*time.Millisecond),
		(time.Duration(float64(after.CPU-before.CPU) / n)).Round(time.Microsecond), fmt.Sprintf("%.1f KiB", (idle.RSS-base)/n/1024),
		time.Duration(alone.P99).Round(time.Microsecond), time.Duration(among.P50).Round(time.Microsecond), time.Duration(among.P99).Round(time.Microsecond))
	return nil
}

// joinCrowd starts processes that open n connections in all, and returns when every one of them has
// had an answer. leave ends the processes, also where there is an error.
func (c *cell) joinCrowd(n int) (leave func(), err error) {
	var running, opening sync.WaitGroup
	var inputs []io.Closer
	leave = func() {
		for _, in := range inputs {
			in.Close()
		}
		running.Wait()
	}
	var mu sync.Mutex // guards errs
	var errs []error
	for i := 0; n > 0; i++ {
		j := crowdJob{Addr: c.addr, From: fmt.Sprintf("127.0.1.%d", i+1), Roots: c.ca.PEM(), Count: min(n, crowdSize)}
		n -= j.Count
		cmd, err := childCommand("crowd")
		if err != nil {
			return leave, err
		}
		in, err := cmd.StdinPipe()
		if err != nil {
			return leave, err
		}
		answer, err := cmd.StdoutPipe()
		if err != nil {
			return leave, err
		}
		if err := startOn(loadCore, cmd); err != nil {
			return leave, err
		}
		inputs = append(inputs, in)
		ready := make(chan struct{})
		running.Go(func() {
			<-ready
			_ = cmd.Wait() // it has said what went wrong
		})
		opening.Go(func() {
			defer close(ready)
			var opened int
			if err := errors.Join(json.NewEncoder(in).Encode(j), json.NewDecoder(answer).Decode(&opened)); err != nil || opened != j.Count {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("%d of %d clients from %s: %w", opened, j.Count, j.From, err))
			}
		})
	}
	opening.Wait()
	return leave, errors.Join(errs...)
}
