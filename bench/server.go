package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"time"
)

// The variants. "ours" runs on the engine that the binary was built with.
const (
	raw        = "raw"
	rawDrain   = "raw+drain"
	ours       = "ours"
	oursPool   = "ours, BufferPool"
	oursFramed = "ours, framed"
	ergoMeta   = "ergo"
	ergoPool   = "ergo, BufferPool"
)

// serverJob is the first line of a server's input.
type serverJob struct {
	Variant   string
	Cert, Key []byte        // PEM
	ClientCA  []byte        // PEM; clients must have a certificate, if set
	Dir       string        // certificate pairs, instead of Cert and Key
	Pause     time.Duration // before each answer
	Ordered   bool          // the certificate of orderedName is waited for
}

// request is any further line.
type request struct {
	Do   string // stats, gc, reload or profile
	File string // for profile; empty ends it
}

// stats is the answer to each line; that to the job has the address.
type stats struct {
	Addr      string
	Error     string
	CPU       time.Duration // since the process began
	RSS, Peak float64       // bytes
	GCs       uint32
}

// starter serves echoes at the address that it returns. The function loads the certificates anew,
// and may be nil.
type starter func(serverJob) (addr string, reload func(context.Context) error, err error)

// starters has the variants. Others add theirs with a build tag.
var starters = map[string]starter{
	raw:        startPlain,
	rawDrain:   startPlain,
	ours:       startOurs,
	oursPool:   startOurs,
	oursFramed: startOurs,
}

// known reports whether a variant is in this binary.
func known(variant string) bool { return starters[variant] != nil }

// serve is the server process: it does what the lines of its input say until that ends.
func serve(in io.Reader, out io.Writer) error {
	input, output := json.NewDecoder(in), json.NewEncoder(out)
	var j serverJob
	if err := input.Decode(&j); err != nil {
		return err
	}
	addr, reload, err := starters[j.Variant](j)
	if err != nil {
		return fmt.Errorf("%s: %w", j.Variant, err)
	}
	for answer := (stats{Addr: addr}); ; {
		if err := output.Encode(answer); err != nil {
			return err
		}
		var r request
		switch err := input.Decode(&r); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if answer, err = do(r, reload); err != nil {
			answer.Error = fmt.Sprintf("%s: %v", r.Do, err)
		}
	}
}

func do(r request, reload func(context.Context) error) (s stats, err error) {
	switch r.Do {
	case "stats":
	case "gc":
		debug.FreeOSMemory()
	case "reload":
		err = reload(context.Background())
	case "profile":
		if r.File == "" {
			pprof.StopCPUProfile()
			break
		}
		var f *os.File
		if f, err = os.Create(r.File); err == nil {
			err = pprof.StartCPUProfile(f) // the file is complete after the stop
		}
	default:
		err = errors.New("unknown request")
	}
	if err != nil {
		return s, err
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.GCs = m.NumGC
	if s.RSS, s.Peak, err = resident(); err != nil {
		return s, err
	}
	s.CPU, err = cpuTime()
	return s, err
}

func startPlain(j serverJob) (string, func(context.Context) error, error) {
	cert, err := tls.X509KeyPair(j.Cert, j.Key)
	if err != nil {
		return "", nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
	if j.ClientCA != nil {
		if config.ClientCAs, err = pool(j.ClientCA); err != nil {
			return "", nil, err
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	echo := rawEcho(j.Pause)
	if j.Variant == rawDrain {
		echo = drainEcho
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	startRaw(l, config, echo)
	return l.Addr().String(), nil, nil
}

func pool(bundle []byte) (*x509.CertPool, error) {
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(bundle) {
		return nil, errors.New("no CA certificate in the bundle")
	}
	return p, nil
}
