package certmanager

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"strings"
	"time"

	"github.com/ergotls/ergotls/internal/clock"
)

// resumption lets sessions be resumed, but never beyond the trust that they began
// under: a ticket carries when its client authenticated first and the fingerprint
// of trust and server name. What does not fit any more is declined, and the client,
// which does not notice, authenticates anew.
type resumption struct {
	m        *Manager
	snapshot *snapshot
	first    time.Time // of the session that this connection resumes
}

// ticketMark begins our entry among the Extra of a session. The entry goes on with
// 8 bytes of Unix seconds and the binding.
const ticketMark = "ergotls1"

const ticketSize = len(ticketMark) + 8 + sha256.Size

// maxTicket is a little less than what the message of a ticket holds (RFC 8446 section 4.6.1), and
// than the message of TLS 1.2 that clients take. A session has the certificates of the client, and
// its chains.
const maxTicket = 60 << 10

// maxClockSkew is how far the clocks of machines that share ticket keys may differ.
const maxClockSkew = time.Minute

func (r *resumption) install(config *tls.Config) {
	config.WrapSession = r.wrap
	config.UnwrapSession = r.unwrap
}

// wrap binds to the snapshot that the handshake began with. If trust changed since, the
// ticket is declined later, which is safe, while the reverse would not be.
func (r *resumption) wrap(state tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
	first := clock.Now()
	if state.DidResume {
		first = r.first
	}
	entry := make([]byte, 0, ticketSize)
	entry = append(entry, ticketMark...)
	entry = binary.BigEndian.AppendUint64(entry, uint64(first.Unix()))
	binding := r.snapshot.policy.binding(state.ServerName)
	entry = append(entry, binding[:]...)
	session.Extra = append(session.Extra, entry)
	ticket, err := r.m.tickets.EncryptTicket(state, session)
	if len(ticket) > maxTicket {
		ticket = []byte("too large") // the client is told of no session; without a ticket the handshake would fail
	}
	return ticket, err
}

func (r *resumption) unwrap(ticket []byte, state tls.ConnectionState) (*tls.SessionState, error) {
	session, err := r.m.tickets.DecryptTicket(ticket, state)
	if session == nil || err != nil {
		return nil, err
	}
	first, ok := r.m.accepts(session.Extra, state.ServerName)
	if !ok {
		r.m.counts.declinedTickets.Add(1)
		return nil, nil
	}
	r.first = first
	return session, nil
}

// accepts looks for our entry and returns when the session began.
func (m *Manager) accepts(extra [][]byte, serverName string) (first time.Time, ok bool) {
	binding := m.current.Load().policy.binding(serverName)
	for _, entry := range extra {
		if len(entry) != ticketSize || !bytes.HasPrefix(entry, []byte(ticketMark)) {
			continue
		}
		entry = entry[len(ticketMark):]
		first = time.Unix(int64(binary.BigEndian.Uint64(entry)), 0)
		age := clock.Now().Sub(first)
		return first, bytes.Equal(entry[8:], binding[:]) && -maxClockSkew <= age && age <= m.options.MaxSessionAge
	}
	return first, false
}

// binding ties a session to a trust and to the name that the client asked for.
func (t *policy) binding(serverName string) [sha256.Size]byte {
	return sha256.Sum256(append(t.fingerprint[:], strings.ToLower(serverName)...))
}

// sessionCache is the client's side. A session that began under another trust is not
// offered: the server it names may have a new certificate by now, that would hold
// where the one of the session does not. One that began with other certificates of our own is not
// either: to the server we would be who we were then.
//
// A ticket can come long after its handshake, when other certificates are in service: who calls
// ForHandshake before each handshake, as package meta does, has it kept for what it was made with.
type sessionCache struct {
	m   *Manager
	lru tls.ClientSessionCache
	as  string // of ForHandshake; empty: what is in service at the time
}

// ForHandshake returns the cache for one handshake.
func (c *sessionCache) ForHandshake() tls.ClientSessionCache {
	return &sessionCache{m: c.m, lru: c.lru, as: c.m.current.Load().sessions()}
}

// sessions says which sessions may be offered.
func (s *snapshot) sessions() string { return string(s.policy.fingerprint[:]) + string(s.identity[:]) }

func (c *sessionCache) key(key string) string {
	return cmp.Or(c.as, c.m.current.Load().sessions()) + key
}

func (c *sessionCache) Get(key string) (*tls.ClientSessionState, bool) { return c.lru.Get(c.key(key)) }

func (c *sessionCache) Put(key string, state *tls.ClientSessionState) { c.lru.Put(c.key(key), state) }
