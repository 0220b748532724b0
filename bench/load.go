package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ergotls/ergotls/tlstest"
)

// cell is the load process: one workload against one server.
type cell struct {
	job
	ca         *tlstest.CA
	clientCert []tls.Certificate
	serverName string
	from       *net.TCPAddr   // of the clients; nil: any
	roots      *x509.CertPool // nil: those of ca
	swap       func() error   // the server's certificates for others, in the workload reload

	addr    string
	toChild *json.Encoder
	answers *json.Decoder
	stop    func() error
}

// load is what the load process does: it prints the measures by row.
func load(j job, out io.Writer) (err error) {
	w := find(j.Workload)
	c := &cell{job: j, serverName: "localhost"}
	if c.ca, err = tlstest.GenerateCA(); err != nil {
		return err
	}
	sj := serverJob{Variant: j.Variant}
	if w.prepare != nil {
		undo, err := w.prepare(c, &sj)
		if err != nil {
			return err
		}
		defer undo()
	}
	if err := c.startServer(sj); err != nil {
		return err
	}
	rows, err := w.run(c)
	if err := errors.Join(err, c.stop()); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(rows)
}

func (c *cell) startServer(j serverJob) error {
	pair, err := c.ca.Generate(tlstest.Leaf{})
	if err != nil {
		return err
	}
	j.Cert, j.Key = pair.CertPEM, pair.KeyPEM
	cmd, err := childCommand("server")
	if err != nil {
		return err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := startOn(serverCore, cmd); err != nil {
		return err
	}
	c.toChild, c.answers = json.NewEncoder(in), json.NewDecoder(out)
	c.stop = func() error {
		in.Close() // with its input the server ends
		return cmd.Wait()
	}
	s, err := c.ask(j)
	if err != nil {
		return errors.Join(err, c.stop())
	}
	c.addr = s.Addr
	return nil
}

// ask sends a line to the server and reads its answer.
func (c *cell) ask(line any) (stats, error) {
	var s stats
	if err := c.toChild.Encode(line); err != nil {
		return s, fmt.Errorf("server: %w", err)
	}
	if err := c.answers.Decode(&s); err != nil {
		return s, fmt.Errorf("server: %w", err)
	}
	if s.Error != "" {
		return s, fmt.Errorf("server: %s", s.Error)
	}
	return s, nil
}

// drive is a load that workers make: each of them does its operation again and again until it is
// ended.
type drive struct {
	done    atomic.Int64 // operations
	keep    atomic.Bool  // latencies
	ended   atomic.Bool
	workers sync.WaitGroup

	mu        sync.Mutex // guards what the workers leave
	latencies []time.Duration
	err       error
}

// start makes a worker of each operation. An operation returns how many it was.
func start(operations []func() (int, error)) *drive {
	r := &drive{}
	for _, operation := range operations {
		r.workers.Go(func() { r.work(operation) })
	}
	return r
}

func (r *drive) work(operation func() (int, error)) {
	var latencies []time.Duration
	var err error
	for !r.ended.Load() && err == nil {
		var n int
		begin := time.Now()
		if n, err = operation(); err == nil {
			r.done.Add(int64(n))
			if r.keep.Load() {
				latencies = append(latencies, time.Since(begin))
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.latencies = append(r.latencies, latencies...)
	r.err = cmp.Or(r.err, err)
}

// pass lasts as long as another thing, and until there was an operation, on however slow a machine.
func (r *drive) pass(during func() error, patience time.Duration) error {
	n, begin := r.done.Load(), time.Now()
	for time.Since(begin) < patience {
		if err := during(); err != nil {
			return err
		}
		if r.done.Load() > n {
			return nil
		}
	}
	return fmt.Errorf("not one operation in %s", patience)
}

// end waits for the workers and returns the first error.
func (r *drive) end() error {
	r.ended.Store(true)
	r.workers.Wait()
	return r.err
}

// measure runs operations side by side and takes, after a while to warm up, what the server needs
// for them.
func (c *cell) measure(operations []func() (int, error)) (measure, error) {
	return c.measureWhile(operations, func() error {
		time.Sleep(c.Time)
		return nil
	})
}

// measureWhile is measure for as long as another thing lasts.
func (c *cell) measureWhile(operations []func() (int, error), during func() error) (m measure, err error) {
	r := start(operations)
	time.Sleep(max(c.Time/4, 50*time.Millisecond))
	if err := c.profile(c.Profile); err != nil {
		return m, err
	}
	before, err := c.ask(request{Do: "stats"})
	if err != nil {
		return m, err
	}
	n, begin := r.done.Load(), time.Now()
	r.keep.Store(true)
	if err := r.pass(during, 10*c.Time+10*time.Second); err != nil {
		return m, err
	}
	after, err := c.ask(request{Do: "stats"})
	if err != nil {
		return m, err
	}
	r.keep.Store(false)
	n, took := r.done.Load()-n, time.Since(begin)
	if err := c.profile(""); err != nil {
		return m, err
	}
	if err := r.end(); err != nil {
		return m, err
	}
	m.CPU = float64(after.CPU-before.CPU) / float64(n)
	m.Rate = float64(n) / took.Seconds()
	m.Mem, m.GCs = after.Peak, after.GCs-before.GCs
	m.P50, m.P99 = percentile(r.latencies, 50), percentile(r.latencies, 99)
	return m, nil
}

// profile begins a profile of the server, or ends it where file is empty.
func (c *cell) profile(file string) error {
	if c.Profile == "" {
		return nil
	}
	_, err := c.ask(request{Do: "profile", File: file})
	return err
}

// percentile sorts what it is given.
func percentile(latencies []time.Duration, percent int) float64 {
	if len(latencies) == 0 {
		return 0
	}
	slices.Sort(latencies)
	return float64(latencies[min(len(latencies)-1, len(latencies)*percent/100)])
}
