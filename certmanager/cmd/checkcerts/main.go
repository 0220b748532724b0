// Checkcerts checks certificate files before a server gets them:
//
//	go run github.com/ergotls/ergotls/certmanager/cmd/checkcerts@latest -cert tls.crt -key tls.key -name www.example.com
//
// Its options are the fields of certmanager.Files. It loads and checks the files as certmanager.New
// does, and prints what would be served for each name and until when, the warnings, and what would
// be refused and why. With -client it prints whether a client with that certificate would be
// accepted, with -against whether a running server already shows the certificates of the files.
//
// The exit code is 0 if all is good, 1 if the files or a client would be refused, 2 for wrong
// options, and 3 if the files are good and the server of -against shows others. A running server
// also compares the files with those in service, which this command cannot do: it may reject good
// files that lack a CA, a name or an intermediate.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/ergotls/ergotls/certmanager"
)

const (
	good    = 0
	refused = 1
	usage   = 2
	differs = 3
)

func main() {
	os.Unsetenv("SSLKEYLOGFILE") // the manager would open the file
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

type options struct {
	files     certmanager.Files
	names     []string
	clients   []string
	freshCRLs bool
	against   string
	json      bool
}

func run(args []string, out, errs io.Writer) int {
	o, err := parse(args, out)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return good
	case err != nil:
		fmt.Fprintln(errs, "checkcerts:", err)
		return usage
	}
	r := o.check()
	if o.json {
		var text []byte
		if text, err = json.MarshalIndent(r, "", "  "); err == nil {
			_, err = out.Write(append(text, '\n'))
		}
	} else {
		err = r.print(out)
	}
	if err != nil {
		fmt.Fprintln(errs, "checkcerts:", err)
		return usage
	}
	return r.code()
}

func parse(args []string, out io.Writer) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("checkcerts", flag.ContinueOnError)
	f := &o.files
	flags.StringVar(&f.Cert, "cert", "", "PEM `file` of a chain, leaf first")
	flags.StringVar(&f.Key, "key", "", "PEM `file` of the private key of -cert; empty: it is in -cert")
	flags.StringVar(&f.Dir, "dir", "", "`folder` of pairs: *.crt or *.pem with the *.key of the same name")
	flags.StringVar(&f.PKCS12, "pkcs12", "", "PKCS #12 `file` (.p12, .pfx)")
	flags.StringVar(&f.PKCS12Password, "pkcs12-password", "", "`file` whose first line is the password of -pkcs12")
	flags.StringVar(&f.ClientCAs, "client-cas", "", "PEM `file` of the CAs that clients are verified with")
	flags.StringVar(&f.RootCAs, "root-cas", "", "PEM `file` of the CAs that servers are verified with")
	flags.StringVar(&f.CRLs, "crls", "", "`file` of revocation lists, PEM or DER")
	flags.StringVar(&f.CRLIssuers, "crl-issuers", "", "PEM `file` of CAs that sign lists only")
	flags.StringVar(&f.ECHKeys, "ech-keys", "", "PEM `file` of Encrypted Client Hello keys")
	flags.StringVar(&f.TicketKeys, "ticket-keys", "", "`file` of the keys of session tickets")
	flags.BoolVar(&o.freshCRLs, "fresh-crls", false, "refuse the clients of a CA whose revocation list is out of date, as Options.RequireFreshCRLs does")
	flags.Func("name", "a DNS `name` or IP address that has to be served; may be repeated, or a list with commas", collect(&o.names))
	flags.Func("client", "PEM `file` with the certificate of a client, for which no key is needed: would it be accepted? May be repeated", collect(&o.clients))
	flags.StringVar(&o.against, "against", "", "`host:port` of a running TLS server to compare with")
	flags.BoolVar(&o.json, "json", false, "print JSON")
	flags.SetOutput(io.Discard) // the caller reports the error
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		flags.SetOutput(out)
		flags.Usage()
		return nil, err
	} else if err != nil {
		return nil, fmt.Errorf("%w; -h lists the options", err)
	}
	switch {
	case flags.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q: each file has an option, -h lists them", flags.Arg(0))
	case o.files == certmanager.Files{}:
		return nil, errors.New("no file is named; -h lists the options")
	case f.Key != "" && f.Cert == "":
		return nil, errors.New("-key without -cert")
	case f.PKCS12Password != "" && f.PKCS12 == "":
		return nil, errors.New("-pkcs12-password without -pkcs12")
	case len(o.clients) > 0 && f.ClientCAs == "":
		return nil, errors.New("-client without -client-cas: a server without client CAs asks no client for a certificate")
	}
	if o.against != "" {
		if host, port, err := net.SplitHostPort(o.against); err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("-against %q is not host:port, such as localhost:4433", o.against)
		}
		if f.Cert == "" && f.Dir == "" && f.PKCS12 == "" {
			return nil, errors.New("-against without -cert, -dir or -pkcs12: there is nothing to compare")
		}
	}
	return o, nil
}

func collect(all *[]string) func(string) error {
	return func(list string) error {
		for one := range strings.SplitSeq(list, ",") {
			if one = strings.TrimSpace(one); one == "" {
				return errors.New("an element is empty")
			}
			*all = append(*all, one)
		}
		return nil
	}
}
