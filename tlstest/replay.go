package tlstest

import (
	"crypto/tls"
	"sync"
)

// Replay is a [tls.ClientSessionCache] that keeps the first session that it is given and presents
// it in every later handshake, to any server. So a test can present a ticket after the server's
// trust has changed. (Other caches keep the newest, and use it once in TLS 1.3.) The client itself
// drops a session that is expired, or not for its ServerName unless InsecureSkipVerify is set.
//
// The session of a TLS 1.3 connection arrives with the first read. The zero
// value is ready, and any goroutine may use it.
type Replay struct {
	mu      sync.Mutex // guards session
	session *tls.ClientSessionState
}

// Session returns the stored session, nil if none has arrived.
func (r *Replay) Session() *tls.ClientSessionState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.session
}

// Put implements [tls.ClientSessionCache].
func (r *Replay) Put(_ string, session *tls.ClientSessionState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session == nil {
		r.session = session
	}
}

// Get implements [tls.ClientSessionCache].
func (r *Replay) Get(string) (*tls.ClientSessionState, bool) {
	session := r.Session()
	return session, session != nil
}
