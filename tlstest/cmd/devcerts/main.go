// Devcerts makes a root CA, a server certificate and a client certificate for development:
//
//	go run github.com/ergotls/ergotls/tlstest/cmd/devcerts@latest -dir certs -names localhost,127.0.0.1
//
// It writes root.crt, server.crt, server.key, client.crt and client.key into the folder, and a
// .gitignore that keeps them out of git. The key of the root is not written, so nobody can issue
// more certificates with it. Existing files are replaced only with -force.
//
// The keys are not protected. Do not use them on a public host.
package main

import (
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ergotls/ergotls/tlstest"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "devcerts:", err)
		os.Exit(2)
	}
}

type options struct {
	dir, names, client string
	days               int
	force              bool
}

func run(args []string, out io.Writer) error {
	var o options
	flags := flag.NewFlagSet("devcerts", flag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", "certs", "the `folder` to write to; it is made if it does not exist")
	flags.StringVar(&o.names, "names", "localhost,127.0.0.1,::1", "DNS names and IP addresses of the server, separated by commas")
	flags.StringVar(&o.client, "client", "client", "the common name of the client")
	flags.IntVar(&o.days, "days", 30, "how many days the certificates are valid, 1 to 3650")
	flags.BoolVar(&o.force, "force", false, "replace files that exist")
	flags.SetOutput(io.Discard) // the caller reports the error
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		flags.SetOutput(out)
		flags.Usage()
		return nil
	} else if err != nil {
		return fmt.Errorf("%w; -h lists the options", err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: the server's names go into -names", flags.Arg(0))
	}
	if o.days < 1 || o.days > 3650 {
		return fmt.Errorf("-days %d is not between 1 and 3650", o.days)
	}
	for _, name := range splitNames(o.names) {
		// What is neither an address nor made of a DNS name's characters matches no server.
		if net.ParseIP(name) == nil && strings.ContainsAny(name, "/:@ []") {
			return fmt.Errorf("-names: %q is not a DNS name or an IP address: leave out the scheme, port and path", name)
		}
	}
	if err := o.check(); err != nil {
		return err
	}
	if err := o.write(); err != nil {
		return err
	}
	return o.explain(out)
}

var files = []string{"root.crt", "server.crt", "server.key", "client.crt", "client.key"}

// check refuses to replace what is there.
func (o *options) check() error {
	if o.force {
		return nil
	}
	for _, name := range files {
		path := filepath.Join(o.dir, name)
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s exists: choose another -dir, or replace it with -force", path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (o *options) write() error {
	until := time.Now().AddDate(0, 0, o.days)
	ca, err := tlstest.GenerateCA(func(c *x509.Certificate) {
		// A root that began a year ago would be in its last third, and reported as expiring.
		c.Subject.CommonName, c.NotBefore, c.NotAfter = "development root", time.Now().Add(-time.Hour), until
	})
	if err != nil {
		return err
	}
	server, err := ca.Generate(tlstest.Leaf{Names: splitNames(o.names), Usage: tlstest.ServerOnly, NotAfter: until})
	if err != nil {
		return fmt.Errorf("-names %q: %w", o.names, err)
	}
	client, err := ca.Generate(tlstest.Leaf{CommonName: o.client, Usage: tlstest.ClientOnly, NotAfter: until})
	if err != nil {
		return fmt.Errorf("-client %q: %w", o.client, err)
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	// Without one of its own, a folder inside of a repository is a git add away from being public.
	ignore := filepath.Join(o.dir, ".gitignore")
	if _, err := os.Lstat(ignore); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(ignore, []byte("*\n"), 0o644); err != nil {
			return err
		}
	}
	if err := tlstest.WriteFile(filepath.Join(o.dir, "root.crt"), ca.PEM(), 0o644); err != nil {
		return err
	}
	if _, _, err := server.WriteFiles(o.dir, "server"); err != nil {
		return err
	}
	_, _, err = client.WriteFiles(o.dir, "client")
	return err
}

func splitNames(list string) (names []string) {
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func (o *options) explain(out io.Writer) error {
	path := func(name string) string { return filepath.Join(o.dir, name) }
	_, err := fmt.Fprintf(out, `For development only: the keys are not protected.

%s  the root that signed the others; clients trust it, and servers for mutual TLS
%s  %s  the server: %s
%s  %s  the client: %s

They are valid for %d days. The key of the root was not kept.

    certmanager.Files{Cert: %q, Key: %q, ClientCAs: %q}
    openssl s_client -connect localhost:4433 -CAfile %s -cert %s -key %s
`,
		path("root.crt"), path("server.crt"), path("server.key"), strings.Join(splitNames(o.names), ", "),
		path("client.crt"), path("client.key"), o.client, o.days,
		path("server.crt"), path("server.key"), path("root.crt"),
		path("root.crt"), path("client.crt"), path("client.key"))
	return err
}
