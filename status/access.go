package status

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// minToken is the least length of a token, in bytes.
const minToken = 16

// Token returns a handler that asks every request for a token before it calls next. A program sends
// it as "Authorization: Bearer TOKEN". A browser asks its user for a name and a password: the name
// may be anything, the password is the token. Any other request gets 401.
//
// The token must have at least 16 bytes, else Token returns an error. Over a network use TLS, or
// the token can be read on the path.
func Token(token string, next http.Handler) (http.Handler, error) {
	if len(token) < minToken {
		return nil, fmt.Errorf("status: the token has %d bytes, which can be guessed: use at least %d, for example from crypto/rand.Text", len(token), minToken)
	}
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			_, shown, _ = r.BasicAuth()
		}
		// Sums have one length, so that the comparison tells nothing about the token's.
		if got := sha256.Sum256([]byte(shown)); subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="status"`)
			http.Error(w, "the status page needs its token", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	}), nil
}

// Serve serves the page until [Page.Close] on a listener that only this machine can reach: on a
// loopback address, or on a unix socket in a folder that only operators can enter. Serve closes any
// other listener and returns an error: use a server of your own there, with TLS and [Token].
// Otherwise it returns the error of [http.Server.Serve], [http.ErrServerClosed] after Close.
//
// Over TCP a request whose Host header is neither localhost nor a loopback address is refused: a
// web page can make a browser on this machine send it (DNS rebinding).
func (p *Page) Serve(listener net.Listener) error {
	var handler http.Handler = p
	switch addr := listener.Addr().(type) {
	case *net.UnixAddr:
	case *net.TCPAddr:
		if !addr.IP.IsLoopback() {
			listener.Close()
			return fmt.Errorf("status: other machines may reach %s, and the page names your peers: listen on localhost or a unix socket, or use a server of your own with TLS and status.Token", addr)
		}
		handler = localHost(p)
	default:
		listener.Close()
		return fmt.Errorf("status: it is not known who can reach a listener of type %T: use a server of your own with TLS and status.Token", listener)
	}
	server := &http.Server{Handler: handler, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute}
	served := make(chan struct{})
	var closer sync.WaitGroup
	closer.Go(func() {
		select {
		case <-p.stop:
		case <-served:
		}
		server.Close()
	})
	err := server.Serve(listener)
	close(served)
	closer.Wait()
	return err
}

// isLocal reports whether a host is this machine, judged by its name or address alone.
func isLocal(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// localHost refuses requests that were made for another host.
func localHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = strings.Trim(r.Host, "[]")
		}
		if !isLocal(host) {
			http.Error(w, "this page is served to localhost only", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}
