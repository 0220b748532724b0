package meta

import (
	"cmp"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"ergo.services/ergo/gen"
)

// ACMEResponderOptions are the options of [CreateACMEResponder].
type ACMEResponderOptions struct {
	// Host is the name or IP address to listen on; empty means all interfaces.
	Host string
	// Port to listen on. 0 means 80, to which CAs connect (RFC 8555 section 8.3); for another port,
	// forward port 80 to it.
	Port uint16
	// Listener, if set, is used instead of Host and Port. The responder closes it.
	Listener net.Listener
	// CertManager is a *certmanager.Manager, or any manager with the method
	//
	//	HTTPHandler(fallback http.Handler) http.Handler
	CertManager gen.CertManager
}

// acmeResponder is the meta process of CreateACMEResponder. Its goroutines are that of Start, which
// accepts, and those of net/http.
type acmeResponder struct {
	behavior

	listener net.Listener
	server   http.Server
}

// CreateACMEResponder opens a listening socket and returns a meta process that answers ACME's
// HTTP-01 challenges on it and redirects all other requests to https. It is for programs without an
// http.Server. If SpawnMeta fails, call Terminate of the result: it frees the port.
//
// The error wraps [ErrOption] or [ErrListen].
func CreateACMEResponder(options ACMEResponderOptions) (gen.MetaBehavior, error) {
	var c check
	c.host("Host", options.Host)
	c.notNil("Listener", options.Listener)
	c.manager(options.CertManager, false)
	manager, ok := options.CertManager.(interface {
		HTTPHandler(http.Handler) http.Handler
	})
	c.refuse(!ok, "CertManager: %T answers no challenges; use a *certmanager.Manager", options.CertManager)
	c.refuse(options.Listener != nil && (options.Host != "" || options.Port != 0), "Listener: it is open already; leave Host and Port unset")
	if err := c.err(); err != nil {
		return nil, err
	}
	listener, err := listen(&TCPServerOptions{
		Host: options.Host, Port: cmp.Or(options.Port, 80), Listener: options.Listener,
	})
	if err != nil {
		return nil, err
	}
	r := &acmeResponder{listener: listener}
	answer := manager.HTTPHandler(nil)
	r.server = http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			if err := protect("HTTPHandler", func() error { answer.ServeHTTP(w, request); return nil }); err != nil {
				r.process.Log().Error("request of %s: %s", request.RemoteAddr, err)
				http.Error(w, "internal error", http.StatusInternalServerError)
			}
		}),
		// Every request is short.
		ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: log.New(io.Discard, "", 0), // anyone can cause these errors
	}
	return r, nil
}

// Init implements gen.MetaBehavior.
func (r *acmeResponder) Init(process gen.MetaProcess) error {
	r.process = process
	process.Log().AddFields(gen.LogField{Name: "listener", Value: r.listener.Addr().String()})
	return nil
}

// Start implements gen.MetaBehavior.
func (r *acmeResponder) Start() error {
	r.process.Log().Info("answering ACME challenges on %s", r.listener.Addr())
	if err := r.server.Serve(r.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// HandleInspect implements gen.MetaBehavior.
func (r *acmeResponder) HandleInspect(gen.PID, ...string) map[string]string {
	return map[string]string{"listen": r.listener.Addr().String()}
}

// Terminate implements gen.MetaBehavior. It may be called in any phase and more than once.
func (r *acmeResponder) Terminate(error) {
	r.server.Close()   // first, so that Start ends without an error
	r.listener.Close() // the server closes it only after Serve was called
}
