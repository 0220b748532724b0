package certmanager

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ergotls/ergotls/certmanager/internal/regular"
	"github.com/ergotls/ergotls/internal/clock"
)

// Options configures a [Manager]. Only Source is required. New returns an error for invalid
// options.
type Options struct {
	// Source provides the certificates and CA bundles.
	Source Source

	// ClientAuth is the servers' policy for client certificates. Zero is RequireAndVerifyClientCert if
	// the source has a client CA bundle, else NoClientCert. VerifyClientCertIfGiven also accepts
	// clients without a certificate; the program must check for that. RequestClientCert and
	// RequireAnyClientCert, which do not verify, are an error.
	ClientAuth tls.ClientAuthType

	// RequireNames are DNS names and IP addresses that every set must serve. A set that lacks one
	// is not put in service. A name that was served only by a certificate with Certificate.Renewed
	// does not count: the source removes such a certificate when it expires.
	RequireNames []string

	// ClientRule decides which verified clients may connect, ServerRule which verified servers this
	// program may connect to. The zero Rule accepts all.
	ClientRule, ServerRule Rule

	// ReportOnly accepts peers that a rule or a revocation list refuses, but reports them: use it to
	// try a rule. Chains and names are always enforced.
	ReportOnly bool

	// RequireFreshCRLs refuses the peers of an issuer whose revocation list is past its nextUpdate. If
	// false, such a list is reported and still used.
	RequireFreshCRLs bool

	// MaxSessionAge is how long after a full handshake a client may resume the session. Zero is 24
	// hours, the maximum is 7 days (RFC 8446 section 4.6.1); negative turns resumption off.
	MaxSessionAge time.Duration

	// TicketKeys are the keys of session tickets: the first encrypts new ones, all decrypt. Machines
	// that share them resume each other's sessions if their trust is the same and its CAs come from
	// Files: a pool in Static cannot be compared between machines. Anyone with a key can resume the
	// session of any client. Nil means random keys that change every day. See also SetTicketKeys.
	TicketKeys [][32]byte

	// KeepExpiredConnections keeps a connection open when its peer's certificate expires. By
	// default it is closed with [ErrExpired].
	KeepExpiredConnections bool

	// PollInterval is the interval at which sources are polled in addition to file events, which
	// network file systems do not send. Zero is 10 seconds; less than a millisecond is an error.
	PollInterval time.Duration

	// Logger gets one line per event. Nil is slog.Default().
	Logger *slog.Logger
}

const (
	defaultMaxSessionAge = 24 * time.Hour
	maxMaxSessionAge     = 7 * 24 * time.Hour
	defaultPollInterval  = 10 * time.Second
)

// ready returns the options with defaults filled in, or an error.
func (o Options) ready() (Options, error) {
	if o.Source == nil {
		return o, fmt.Errorf("certmanager: Options.Source is missing: use Files or Static")
	}
	if err := checkClientAuth(o.ClientAuth); err != nil {
		return o, fmt.Errorf("certmanager: Options.ClientAuth: %w", err)
	}
	if o.PollInterval < 0 {
		return o, fmt.Errorf("certmanager: Options.PollInterval is %v, which is negative", o.PollInterval)
	}
	for name, d := range map[string]time.Duration{"PollInterval": o.PollInterval, "MaxSessionAge": o.MaxSessionAge} {
		if 0 < d && d < time.Millisecond {
			return o, fmt.Errorf("certmanager: Options.%s is %v; use at least 1ms. A number alone is nanoseconds: multiply it by time.Second", name, d)
		}
	}
	if o.MaxSessionAge > maxMaxSessionAge {
		return o, fmt.Errorf("certmanager: Options.MaxSessionAge is %v; TLS allows %v at most", o.MaxSessionAge, maxMaxSessionAge)
	}
	if err := checkTicketKeys(o.TicketKeys); err != nil {
		return o, fmt.Errorf("certmanager: Options.TicketKeys: %w", err)
	}
	for _, name := range o.RequireNames {
		if net.ParseIP(name) == nil && (name == "" || strings.ContainsAny(name, "/: ")) {
			return o, fmt.Errorf("certmanager: Options.RequireNames: %q is not a DNS name or IP address; leave scheme, port and path out", name)
		}
	}
	if o.PollInterval == 0 {
		o.PollInterval = defaultPollInterval
	}
	o.PollInterval = min(o.PollInterval, clock.Far) // jitter is added
	if o.MaxSessionAge == 0 {
		o.MaxSessionAge = defaultMaxSessionAge
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Logger.Handler() == nil {
		return o, fmt.Errorf("certmanager: Options.Logger has no handler: make it with slog.New, or leave it nil for slog.Default()")
	}
	return o, nil
}

func checkClientAuth(auth tls.ClientAuthType) error {
	switch auth {
	case tls.NoClientCert, tls.VerifyClientCertIfGiven, tls.RequireAndVerifyClientCert:
		return nil
	}
	return fmt.Errorf("%w: %v would accept any client with any certificate; use VerifyClientCertIfGiven or RequireAndVerifyClientCert", ErrInvalid, auth)
}

// checkTicketKeys refuses the zero key, which everybody knows.
func checkTicketKeys(keys [][32]byte) error {
	if i := slices.Index(keys, [32]byte{}); i >= 0 {
		return fmt.Errorf("%w: ticket key %d is all zero: nothing was copied into it", ErrInvalid, i)
	}
	return nil
}

// openKeyLog opens the file named by the environment variable SSLKEYLOGFILE, as browsers and curl
// do. TLS secrets are appended to it, for debugging.
func (m *Manager) openKeyLog() error {
	path := os.Getenv("SSLKEYLOGFILE")
	if path == "" {
		return nil
	}
	file, err := regular.Open(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("SSLKEYLOGFILE: %w", err)
	}
	m.keyLog = &keyLog{file: file, events: &m.events}
	m.options.Logger.Warn("SSLKEYLOGFILE is set: TLS secrets are written to a file; every connection can be decrypted with it", "file", path)
	return nil
}

// keyLog is a file of TLS secrets. Its Write returns no error, for example of a full disk, because
// crypto/tls would end the handshake.
type keyLog struct {
	file   *os.File
	events *events
	failed atomic.Bool
}

func (k *keyLog) Write(line []byte) (int, error) {
	if _, err := k.file.Write(line); err != nil && !k.failed.Swap(true) {
		k.events.log(slog.LevelWarn, "SSLKEYLOGFILE: TLS secrets cannot be written; connections are not affected", slog.Any("error", err))
	}
	return len(line), nil
}
