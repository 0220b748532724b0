package meta

import (
	"bufio"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
)

// panicError is a panic of a function that the program has passed to this package.
type panicError struct {
	name  string // of the option or method
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("%s panicked: %v", e.name, e.value) }

// protect calls f and returns its panic as a *panicError.
func protect(name string, f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{name, v, debug.Stack()}
		}
	}()
	return f()
}

// protectSplit returns a split function that returns a panic of split as an error.
func protectSplit(split bufio.SplitFunc) bufio.SplitFunc {
	return func(data []byte, atEOF bool) (advance int, token []byte, err error) {
		err = protect("Split", func() error { advance, token, err = split(data, atEOF); return err })
		return advance, token, err
	}
}

// logPanic logs the stack of the panic that ended the connection, if cause is one.
func (c *tcpConnection) logPanic(cause error) {
	panicked, ok := errors.AsType[*panicError](cause)
	write := func() {
		c.log().Error("connection with %s ended: %s\n%s", c.sock.RemoteAddr(), panicked, panicked.stack)
	}
	if ok && c.server != nil {
		c.server.logLimit.Do(write) // peers can cause many
	} else if ok {
		write()
	}
}

// tlsHandshake is one TLS handshake. Only its goroutine uses it.
type tlsHandshake struct {
	limiter *handshakeLimiter // nil: a client's handshake
	ctx     context.Context
	id      fmt.Stringer // of the connection
	began   bool         // bytes were read
	hello   bool         // the ClientHello was read
	exempt  bool         // a CA validates a name: handshakes that wait for its order may hold all places
	placed  bool         // holds a place of limiter

	panicked *panicError // of a callback; crypto/tls does not wrap every error
}

// enter takes a place, or returns the error of the context. It takes none before the ClientHello is
// read, because there is nothing to compute until then.
func (s *tlsHandshake) enter() error {
	if s.limiter == nil || !s.hello || s.exempt || s.placed {
		return nil
	}
	err := s.limiter.enter(s.ctx)
	s.placed = err == nil
	return err
}

// leave returns the place, if the handshake holds one.
func (s *tlsHandshake) leave() {
	if s.placed {
		s.placed = false
		s.limiter.leave()
	}
}

// call calls a callback without holding a place, because the callback may block. A panic is
// returned as an error, so that the peer gets an alert.
func (s *tlsHandshake) call(name string, f func() error) error {
	s.leave()
	err := protect(name, f)
	if panicked, ok := errors.AsType[*panicError](err); ok {
		s.panicked = panicked
	}
	if err != nil {
		return err
	}
	return s.enter()
}

// serverConfig returns config for the handshakes of one server. Each handshake has its own copy of
// the manager's configuration, whose callbacks its tlsHandshake calls. If insecure is set, any
// client certificate is accepted.
func serverConfig(config *tls.Config, insecure bool) *tls.Config {
	outer := config.Clone()
	outer.GetConfigForClient = func(hello *tls.ClientHelloInfo) (own *tls.Config, err error) {
		s := hello.Conn.(*socket).handshake
		s.hello = true
		err = s.call("GetConfigForClient", func() (err error) {
			if config.GetConfigForClient != nil {
				own, err = config.GetConfigForClient(hello)
			}
			own = cmp.Or(own, config)
			s.exempt = slices.Equal(hello.SupportedProtos, []string{challengeProtocol}) && slices.Contains(own.NextProtos, challengeProtocol)
			return err
		})
		if err != nil {
			return nil, err
		}
		own = s.config(own)
		if insecure {
			acceptAnyClient(own)
		}
		return own, nil
	}
	return outer
}

// config returns a copy of a configuration whose callbacks are called by s.
func (s *tlsHandshake) config(config *tls.Config) *tls.Config {
	own := config.Clone()
	own.DynamicRecordSizingDisabled = true // each write is one record, which the peer gets whole or not at all: see writer
	own.Certificates = slices.Clone(config.Certificates)
	for i := range own.Certificates {
		own.Certificates[i] = *s.certificate(&own.Certificates[i])
	}
	if cache, ok := config.ClientSessionCache.(interface{ ForHandshake() tls.ClientSessionCache }); ok {
		own.ClientSessionCache = cache.ForHandshake()
	}
	if f := config.GetCertificate; f != nil {
		own.GetCertificate = func(hello *tls.ClientHelloInfo) (cert *tls.Certificate, err error) {
			err = s.call("GetCertificate", func() error { cert, err = f(hello); return err })
			return s.certificate(cert), err
		}
	}
	if f := config.GetClientCertificate; f != nil {
		own.GetClientCertificate = func(request *tls.CertificateRequestInfo) (cert *tls.Certificate, err error) {
			err = s.call("GetClientCertificate", func() error { cert, err = f(request); return err })
			return s.certificate(cert), err
		}
	}
	if f := config.VerifyPeerCertificate; f != nil {
		own.VerifyPeerCertificate = func(raw [][]byte, chains [][]*x509.Certificate) error {
			return s.call("VerifyPeerCertificate", func() error { return f(raw, chains) })
		}
	}
	if f := config.VerifyConnection; f != nil {
		own.VerifyConnection = func(state tls.ConnectionState) error {
			return s.call("VerifyConnection", func() error { return f(state) })
		}
	}
	return own
}

// certificate returns cert for the handshake. A key outside this process, for example in a hardware
// module, signs without holding a place. It does not decrypt: only RSA key exchange, which has no
// forward secrecy, would need that.
func (s *tlsHandshake) certificate(cert *tls.Certificate) *tls.Certificate {
	if cert == nil || computes(cert.PrivateKey) {
		return cert
	}
	signer, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		return cert // crypto/tls returns the error
	}
	own := *cert
	own.PrivateKey = remoteSigner{signer, s}
	return &own
}

// computes reports whether key signs in this process.
func computes(key crypto.PrivateKey) bool {
	switch key.(type) {
	case *ecdsa.PrivateKey, *rsa.PrivateKey, ed25519.PrivateKey, nil:
		return true
	}
	return false
}

// remoteSigner is a key that signs without holding a place.
type remoteSigner struct {
	crypto.Signer
	s *tlsHandshake
}

// Sign implements crypto.Signer.
func (k remoteSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	err = k.s.call("PrivateKey.Sign", func() error { signature, err = k.Signer.Sign(rand, digest, opts); return err })
	return signature, err
}

// SignMessage implements crypto.MessageSigner.
func (k remoteSigner) SignMessage(rand io.Reader, message []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	err = k.s.call("PrivateKey.Sign", func() error { signature, err = crypto.SignMessage(k.Signer, rand, message, opts); return err })
	return signature, err
}
