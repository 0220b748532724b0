package acme

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/clock"
)

// backgroundDelay gives the program's server time to listen before the CA connects to it.
const backgroundDelay = time.Second

// start loads the certificates of Domains from the cache and, without Background, obtains the
// missing ones.
func (s *state) start(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, s.o.StartTimeout)
	defer cancel()
	if !s.o.Background {
		s.startEnd, _ = limited.Deadline()
	}
	var missing []*name
	for _, domain := range s.o.Domains {
		n := s.names[domain]
		if cert := s.load(limited, n); cert != nil {
			s.adopt(n, cert)
		}
		if s.serving(n) == nil {
			missing = append(missing, n)
		}
	}
	if err := s.tryStorage(limited); err == nil {
		s.storageOK.Store(true)
	} else if !s.o.Background && (len(missing) > 0 || len(s.o.Domains) == 0) {
		return fmt.Errorf("ACME: %w", err)
	} else {
		s.emit(certmanager.CacheFailed, "storage", err)
	}
	// The CA connects to the address of a name to validate it, if not by DNS.
	byAddress := func(n *name) bool { return slices.Contains(s.challenges(n), acme.ChallengeTypeTLSALPN01) }
	if !s.o.Background && slices.ContainsFunc(missing, byAddress) {
		stop, err := s.listen()
		if err != nil {
			return err
		}
		defer stop()
	}
	for _, domain := range s.o.Domains {
		n := s.names[domain]
		s.mu.Lock()
		if s.o.Background || !slices.Contains(missing, n) { // New does not wait: the program's own server must answer
			n.notDueBefore(clock.Now().Add(backgroundDelay))
		}
		s.mu.Unlock()
		s.maintaining.Go(func() { s.maintain(ctx, n) })
	}
	if s.o.Background {
		return nil
	}
	return s.waitFor(limited, missing)
}

// waitFor waits until each name has a certificate or was refused by the CA, or until ctx ends after
// StartTimeout.
func (s *state) waitFor(ctx context.Context, names []*name) error {
	var errs []error
	var issued []string
	for _, n := range names {
		var err error // of the last attempt
		cert := s.await(ctx, n, func() bool { err = n.err; return isInvalid(err) })
		if cert != nil {
			issued = append(issued, n.text)
			continue
		}
		if !isInvalid(err) {
			err = errors.Join(err, fmt.Errorf("no certificate within StartTimeout, %v", s.o.StartTimeout))
		}
		errs = append(errs, fmt.Errorf("ACME: %s: %w", n.text, err))
	}
	if len(errs) == 0 {
		return nil
	}
	hint := "set Background to start without these certificates"
	if len(issued) > 0 {
		hint = fmt.Sprintf("%s: issued and stored; %s", strings.Join(issued, ", "), hint)
	}
	return errors.Join(append(errs, errors.New(hint))...)
}
