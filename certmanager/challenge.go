package certmanager

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/ergotls/ergotls/internal/conninfo"
)

// challengeProtocol is the ALPN protocol of a CA that validates a name by TLS-ALPN-01 (RFC 8737).
const challengeProtocol = "acme-tls/1"

// ErrChallenge is returned after a handshake in which a CA has validated a name. The challenge was
// answered, and the connection is closed.
var ErrChallenge = errors.New("the handshake was a CA's validation of a name")

// oidACMEIdentifier is the extension in the answer to a challenge (RFC 8737 section 6.1).
var oidACMEIdentifier = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}

// challengeKey marks the context of a handshake whose connection is closed if it is a challenge.
type challengeKey struct{}

// ServerHandshake performs the handshake of a connection made by tls.Server with a config of
// [Manager.ServerTLS]. Only ServerHandshake answers a challenge of a CA (TLS-ALPN-01). Any client
// can offer the protocol of a challenge and needs no certificate for it, so ServerHandshake closes
// such a connection and returns [ErrChallenge]; the connection must not reach an application. It
// reports a refused client, as [Manager.ReportRefused] does.
//
// Package meta and [Manager.NewListener] call it.
func (m *Manager) ServerHandshake(ctx context.Context, conn *tls.Conn) error {
	err := conn.HandshakeContext(context.WithValue(ctx, challengeKey{}, true))
	if err != nil {
		m.ReportRefused(err, conninfo.RemoteAddr(conn.NetConn()))
		return err
	}
	if conn.ConnectionState().NegotiatedProtocol == challengeProtocol {
		_ = conn.Close() // the challenge was answered
		return ErrChallenge
	}
	return nil
}

// isChallenge reports whether the client can be a CA that validates a name (RFC 8737 section 3).
func isChallenge(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == challengeProtocol
}

// mayAnswer reports whether a challenge's connection is closed after its handshake.
func mayAnswer(hello *tls.ClientHelloInfo) bool {
	ctx := hello.Context()
	return ctx != nil && ctx.Value(challengeKey{}) != nil
}

// challengeConfig returns the config for the handshake of a CA that validates a name: without
// client certificates and tickets. It returns nil for any other handshake, if there is no answer,
// or if the connection could reach an application. No other config has the protocol: a server
// without protocols would then refuse clients that offer any.
func challengeConfig(hello *tls.ClientHelloInfo, answers []Func) *tls.Config {
	if !isChallenge(hello) || !mayAnswer(hello) || len(answers) == 0 {
		return nil
	}
	config := newTLSConfig()
	config.NextProtos = []string{challengeProtocol}
	config.SessionTicketsDisabled = true
	config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		for _, answer := range answers {
			if cert, err := answer.ask(hello); err == nil && checkAnswer(cert) == nil {
				return cert, nil
			}
		}
		return nil, nil // the alert is unrecognized_name
	}
	return config
}

// checkAnswer refuses a certificate that is no answer to a challenge: it would be a server's
// certificate, presented to a client that was not asked for its own.
func checkAnswer(cert *tls.Certificate) error {
	if cert == nil || len(cert.Certificate) == 0 {
		return errors.New("there is no answer to this challenge")
	}
	leaf := cert.Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return err
		}
	}
	for _, ext := range leaf.Extensions {
		if ext.Id.Equal(oidACMEIdentifier) && ext.Critical {
			return nil
		}
	}
	return errors.New("the answer to a challenge lacks the extension acmeIdentifier")
}

const http01Path = "/.well-known/acme-challenge/"

// HTTPHandler answers the HTTP-01 challenges of sources that obtain certificates, such as
// acme.Source. Requests to port 80 of the name must reach it, directly or through a proxy. After
// the first call, HTTP-01 is used if TLS-ALPN-01 fails. All other requests go to fallback; nil
// redirects GET and HEAD to https and refuses other methods.
func (m *Manager) HTTPHandler(fallback http.Handler) http.Handler {
	if fallback == nil {
		fallback = http.HandlerFunc(redirectToHTTPS)
	}
	for _, answer := range m.current.Load().in.material.httpAnswers {
		answer("", "")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, http01Path) {
			fallback.ServeHTTP(w, r)
			return
		}
		for _, answer := range m.current.Load().in.material.httpAnswers {
			if body, ok := answer(r.Host, r.URL.Path); ok {
				w.Header().Set("Content-Type", "text/plain")
				_, _ = io.WriteString(w, body)
				return
			}
		}
		http.Error(w, "no such challenge", http.StatusNotFound)
	})
}

// redirectToHTTPS sends browsers to the same host on port 443.
func redirectToHTTPS(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "use https", http.StatusBadRequest)
		return
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
		if strings.Contains(name, ":") {
			host = "[" + name + "]"
		}
	}
	http.Redirect(w, r, "https://"+host+r.URL.RequestURI(), http.StatusFound)
}
