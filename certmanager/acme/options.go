package acme

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
)

// ready returns a copy with defaults filled in and names normalized, or an error.
func (a *Source) ready() (Source, error) {
	o := *a
	o.state = nil
	o.Domains = nil
	for _, domain := range a.Domains {
		name, err := identifier(domain, a.DNSPersist || a.DNS != nil)
		if err != nil {
			return o, fmt.Errorf("acme.Source.Domains: %w", err)
		}
		if !slices.Contains(o.Domains, name) {
			o.Domains = append(o.Domains, name)
		}
	}
	if err := o.possible(); err != nil {
		return o, err
	}
	all, err := a.allCAs()
	if err != nil {
		return o, err
	}
	o.Directory, o.Fallbacks = all[0].Directory, all[1:]
	if o.Cache == nil {
		folder, err := os.UserCacheDir()
		if err != nil {
			return o, fmt.Errorf("acme.Source.Cache is not set, and there is no default: %w", err)
		}
		o.Cache = autocert.DirCache(filepath.Join(folder, "golang-autocert"))
	}
	o.HandshakeTimeout = cmp.Or(o.HandshakeTimeout, 5*time.Second)
	o.StartTimeout = cmp.Or(o.StartTimeout, time.Minute)
	o.DNSTimeout = cmp.Or(o.DNSTimeout, 2*time.Minute)
	o.Listen = cmp.Or(o.Listen, ":443")
	o.MaxNames = cmp.Or(o.MaxNames, 1000)
	o.OrdersPerHour = cmp.Or(o.OrdersPerHour, 60)
	return o, nil
}

// possible checks the options by themselves.
func (a *Source) possible() error {
	switch {
	case len(a.Domains) == 0 && a.HostPolicy == nil:
		return invalid("Domains and HostPolicy are both empty: say which names are yours")
	case a.HostPolicy != nil && a.askPolicy(context.Background(), new(atomic.Int32), strings.ToLower(rand.Text())+".invalid") == nil:
		return invalid("HostPolicy allows any name: anyone could spend your rate limit at the CA")
	case a.RenewBefore < 0 || a.StartTimeout < 0 || a.DNSTimeout < 0 || a.MaxNames < 0 || a.OrdersPerHour < 0:
		return invalid("RenewBefore, StartTimeout, DNSTimeout, MaxNames and OrdersPerHour must not be negative")
	case a.Key < ECDSAP256 || a.Key > RSA2048:
		return invalid("Key %d is none of ECDSAP256, ECDSAP384 and RSA2048", a.Key)
	}
	return nil
}

func (e *ExternalAccount) check() error {
	if e == nil {
		return nil
	}
	if key, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(e.MACKey, "=")); e.KeyID == "" || err != nil || len(key) == 0 {
		return invalid("ExternalAccount: KeyID or MACKey is empty, or MACKey is not base64url")
	}
	return nil
}

// allCAs returns the CA of the source and the Fallbacks, with short names replaced by URLs.
func (a *Source) allCAs() ([]CA, error) {
	all := append([]CA{{a.Directory, a.Roots, a.ExternalAccount, a.Profile}}, a.Fallbacks...)
	for i, c := range all {
		url, err := directoryURL(c.Directory)
		if err == nil {
			err = c.ExternalAccount.check()
		}
		if err != nil && i > 0 {
			//lint:ignore ST1005 it is the name of an option
			err = fmt.Errorf("Fallbacks[%d]: %w", i-1, err)
		}
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(all[:i], func(other CA) bool { return other.Directory == url }) {
			return nil, invalid("Fallbacks[%d]: %s is there already", i-1, url)
		}
		all[i].Directory = url
	}
	return all, nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: acme.Source.%s", certmanager.ErrInvalid, fmt.Sprintf(format, args...))
}

// directoryURL returns the URL of a directory, or an error.
func directoryURL(directory string) (string, error) {
	switch directory {
	case "":
		return autocert.DefaultACMEDirectory, nil
	case "staging":
		return "https://acme-staging-v02.api.letsencrypt.org/directory", nil
	}
	u, err := url.Parse(directory)
	switch {
	case err == nil && u.User != nil: // it would be in Status and metrics
		return "", invalid("Directory: %q has a user name or password: a CA identifies you by ExternalAccount", u.Redacted())
	case err == nil && (u.Scheme != "https" || u.Host == "" || u.Fragment != ""):
		err = errors.New("it is not an https URL")
	}
	if err != nil {
		return "", invalid("Directory: %q: %v; use the URL of a CA's directory, \"staging\", or nothing for Let's Encrypt", directory, err)
	}
	return directory, nil
}
