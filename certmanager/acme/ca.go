package acme

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"golang.org/x/crypto/acme/autocert"
	"golang.org/x/time/rate"

	"github.com/ergotls/ergotls/internal/clock"
)

// directoryAge is how long a directory is used before it is read again.
const directoryAge = time.Hour

// requestTimeout limits a request with its response.
const requestTimeout = 30 * time.Second

// maxLetsEncrypt is how many orders an account may make at Let's Encrypt at once, plus one more
// every 36 seconds (https://letsencrypt.org/docs/rate-limits/).
const maxLetsEncrypt = 300

// ca is a CA and the account there.
type ca struct {
	CA
	s       *state
	host    string // for errors
	id      string // part of cache keys, which are file names
	network *http.Transport
	orders  *rate.Limiter // limits new orders; renewals do not count
	unmade  atomic.Int32  // orders that orders has allowed and the CA has not made

	turn    chan struct{} // capacity 1; a lock for the fields below
	readAt  time.Time     // when the directory was read
	client  *client
	account acme.Account // has a Location once it is registered
}

// client has the clients and the account for an order.
type client struct {
	*acme.Client
	renewal *acme.Client // the same, for renewal information
	meta    acme.DirectoryMeta
	account acme.Account
	ca      *ca
}

func newCA(s *state, o CA) *ca {
	shared := &http.Transport{Proxy: http.ProxyFromEnvironment}
	if usual, ok := http.DefaultTransport.(*http.Transport); ok { // programs may replace it
		shared = usual.Clone()
	}
	shared.TLSClientConfig = &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12}
	orders := rate.NewLimiter(rate.Inf, 0)
	if o.Directory == autocert.DefaultACMEDirectory {
		orders = rate.NewLimiter(rate.Every(3*time.Hour/maxLetsEncrypt), maxLetsEncrypt)
	}
	u, _ := url.Parse(o.Directory) // was checked
	sum, host := sha256.Sum256([]byte(o.Directory)), strings.ReplaceAll(u.Hostname(), ":", "-")
	return &ca{
		CA: o, s: s, host: u.Host, turn: make(chan struct{}, 1), network: shared, orders: orders,
		id: host[:min(len(host), 60)] + "-" + hex.EncodeToString(sum[:4]), // a file name has at most 255 bytes
	}
}

// awaitOrder waits until a new order is allowed.
func (c *ca) awaitOrder(ctx context.Context) error {
	if c.unmade.Add(-1) >= 0 {
		return nil
	}
	c.unmade.Add(1)
	return c.orders.Wait(ctx)
}

// connect returns a client, with an account if wanted, which it registers on first use.
func (c *ca) connect(ctx context.Context, account bool) (*client, error) {
	release, err := acquire(ctx, c.turn)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := c.discover(ctx); err != nil {
		return nil, err
	}
	if account && c.account.Location == "" {
		if err := c.register(ctx); err != nil {
			return nil, err
		}
	}
	ready := *c.client
	ready.account = c.account
	return &ready, nil
}

// forget makes the next order register again, unless account was already replaced.
func (c *ca) forget(account acme.Account) {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if c.account.Location == account.Location {
		c.account = acme.Account{}
	}
}

// discover reads the directory if it is older than directoryAge, and makes a client for it. The
// caller holds turn.
func (c *ca) discover(ctx context.Context) error {
	if c.client != nil && clock.Now().Before(c.readAt.Add(directoryAge)) && !clock.Now().Before(c.readAt) {
		return nil
	}
	directory, err := call(ctx, "directory", c.readDirectory)
	if err != nil {
		return err
	}
	c.readAt = clock.Now()
	c.client = &client{ca: c, renewal: c.newClient(directory)}
	if directory.Meta != nil {
		c.client.meta = *directory.Meta
	}
	// With it acmez would ask for renewal information with each certificate, and repeat that while the
	// CA has none.
	directory.RenewalInfo = ""
	c.client.Client = c.newClient(directory)
	return nil
}

// newClient makes an acmez client with a known directory. The fragment of the URL, which is not
// sent, identifies the contents in acmez's cache of directories.
func (c *ca) newClient(directory acme.Directory) *acme.Client {
	// Only the fields that acmez knows: Let's Encrypt adds a random one each time.
	body, _ := json.Marshal(directory) // it has only strings
	sum := sha256.Sum256(body)
	return &acme.Client{
		Directory: c.Directory + "#" + hex.EncodeToString(sum[:8]), UserAgent: "ergotls", PollTimeout: 1, // poll does it
		HTTPClient: c.httpClient(body),
	}
}

func (c *ca) httpClient(directory []byte) *http.Client {
	return &http.Client{Transport: &transport{c.network, directory}, Timeout: requestTimeout}
}

func (c *ca) readDirectory(ctx context.Context) (directory acme.Directory, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Directory, nil)
	if err != nil {
		return directory, err
	}
	request.Header.Set("User-Agent", "ergotls")
	response, err := c.httpClient(nil).Do(request)
	if err != nil {
		return directory, err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&directory); err != nil || directory.NewOrder == "" {
		return directory, errors.Join(fmt.Errorf("%s is not that of an ACME CA", c.Directory), err)
	}
	return directory, nil
}

// register creates or finds the account. The caller holds turn.
func (c *ca) register(ctx context.Context) error {
	unlock, err := c.s.lock(ctx, c.accountKey()) // N machines, one account
	if err == nil {
		defer unlock()
	}
	key, err := c.s.accountKey(ctx, c)
	if err != nil {
		return err
	}
	account := acme.Account{PrivateKey: key, TermsOfServiceAgreed: true}
	if c.s.o.Email != "" {
		account.Contact = []string{"mailto:" + c.s.o.Email}
	}
	made, err := call(ctx, "account", func(ctx context.Context) (acme.Account, error) {
		if binding := c.ExternalAccount; binding != nil {
			if err := account.SetExternalAccountBinding(ctx, c.client.Client, acme.EAB{KeyID: binding.KeyID, MACKey: strings.TrimRight(binding.MACKey, "=")}); err != nil {
				return account, err
			}
		}
		return c.client.NewAccount(ctx, account)
	})
	switch {
	case isProblem(err, acme.ProblemTypeExternalAccountRequired):
		return fmt.Errorf("acme.Source.ExternalAccount is not set, or that of Fallbacks: %w", err)
	case err != nil && c.ExternalAccount != nil && isInvalid(err):
		return fmt.Errorf("%w; compare acme.Source.ExternalAccount with what the CA has issued", err)
	case err != nil:
		return err
	}
	c.account = made
	return nil
}
