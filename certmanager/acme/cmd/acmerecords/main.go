// Acmerecords prints the TXT records that DNS-PERSIST-01 needs, and reports whether they exist:
//
//	go run github.com/ergotls/ergotls/certmanager/acme/cmd/acmerecords -cache certificates example.com '*.example.com'
//
// It registers an account at the CA, in the cache that the program will use, if there is none yet;
// it orders nothing. It exits with 1 if a record is missing or wrong.
package main

import (
	"context"
	"crypto/x509"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager/acme"
)

func main() {
	cache := flag.String("cache", "certificates", "`folder` of the program's Cache, with the account key and the certificates")
	directory := flag.String("directory", "", "`URL` of the CA's directory; empty is Let's Encrypt, staging its staging environment")
	email := flag.String("email", "", "`address` for the CA to write to")
	roots := flag.String("roots", "", "`file` of the roots of a private CA's HTTPS; empty is the system's")
	servers := flag.String("dns", "", "`addresses` of name servers, host:port with commas between; empty is the system's")
	until := flag.Duration("for", 0, "how long the record is to be valid, for example 8760h; 0 means no expiry")
	flag.Parse()
	ok, err := run(*cache, *directory, *email, *roots, *servers, *until, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "acmerecords:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(cache, directory, email, roots, servers string, valid time.Duration, domains []string) (ok bool, err error) {
	source := &acme.Source{Domains: domains, Directory: directory, Email: email, Cache: autocert.DirCache(cache), DNSPersist: true}
	if servers != "" {
		source.DNSServers = strings.Split(servers, ",")
	}
	if valid > 0 {
		source.PersistUntil = time.Now().Add(valid)
	}
	if roots != "" {
		pem, err := os.ReadFile(roots)
		if err != nil {
			return false, err
		}
		source.Roots = x509.NewCertPool()
		if !source.Roots.AppendCertsFromPEM(pem) {
			return false, fmt.Errorf("%s has no certificate", roots)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	records, err := source.Records(ctx)
	ok = true
	seen := make(map[string]bool)
	for _, r := range records {
		if !seen[r.String()] {
			seen[r.String()] = true
			fmt.Println(r)
		}
		switch {
		case r.Err != nil:
			ok = false
			fmt.Printf("; %s: %v\n", r.Domain, r.Err)
		case r.Until.IsZero():
			fmt.Printf("; %s: the record is there\n", r.Domain)
		default:
			fmt.Printf("; %s: the record is there until %s\n", r.Domain, r.Until.UTC().Format(time.RFC3339))
		}
	}
	return ok, err
}
