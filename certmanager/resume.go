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

// resumption resumes sessions only under the trust that they began with: a ticket contains the time
// of the full handshake and the fingerprint of trust and server name. A ticket that no longer
// matches is declined, and the client performs a full handshake without noticing.
type resumption struct {
	m        *Manager
	snapshot *snapshot
	first    time.Time // the full handshake of the resumed session
}

// ticketMark starts our entry in the Extra of a session. 8 bytes of Unix seconds and the binding
// follow.
const ticketMark = "ergotls1"

const ticketSize = len(ticketMark) + 8 + sha256.Size

// maxTicket is a little less than the limit of the ticket's message (RFC 8446 section 4.6.1), and
// of the TLS 1.2 message that clients accept. A session contains the certificates of the client and
// its chains.
const maxTicket = 60 << 10

// maxClockSkew is how far the clocks of machines that share ticket keys may differ.
const maxClockSkew = time.Minute

func (r *resumption) install(config *tls.Config) {
	config.WrapSession = r.wrap
	config.UnwrapSession = r.unwrap
}

// wrap binds the ticket to the snapshot that the handshake began with. If trust has changed since,
// the ticket is declined later, which is safe; binding to the newer snapshot would not be.
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
		ticket = []byte("too large") // an invalid ticket, since the handshake would fail without one
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

// accepts finds our entry and returns the time of the full handshake.
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

// binding binds a session to the policy and to the name that the client asked for.
func (t *policy) binding(serverName string) [sha256.Size]byte {
	return sha256.Sum256(append(t.fingerprint[:], strings.ToLower(serverName)...))
}

// sessionCache is the client side. It does not offer a session that began under another trust,
// because the server may have a new certificate that is accepted where the old one is not. Nor does
// it offer one that began with other certificates of ours, because the server would still identify
// us by those.
//
// A ticket can arrive long after its handshake, when other certificates are in service. A caller of
// ForHandshake before each handshake, such as package meta, has it stored under the certificates of
// that handshake.
type sessionCache struct {
	m   *Manager
	lru tls.ClientSessionCache
	as  string // set by ForHandshake; empty: that of the snapshot in service
}

// ForHandshake returns the cache for one handshake.
func (c *sessionCache) ForHandshake() tls.ClientSessionCache {
	return &sessionCache{m: c.m, lru: c.lru, as: c.m.current.Load().sessions()}
}

// sessions returns the key of the sessions that may be offered.
func (s *snapshot) sessions() string { return string(s.policy.fingerprint[:]) + string(s.identity[:]) }

func (c *sessionCache) key(key string) string {
	return cmp.Or(c.as, c.m.current.Load().sessions()) + key
}

func (c *sessionCache) Get(key string) (*tls.ClientSessionState, bool) { return c.lru.Get(c.key(key)) }

func (c *sessionCache) Put(key string, state *tls.ClientSessionState) { c.lru.Put(c.key(key), state) }
