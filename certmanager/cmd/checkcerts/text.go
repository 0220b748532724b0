package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ergotls/ergotls/certmanager"
)

const maxLines = 50 // of a list; -json has all

// print writes the report as text.
func (r *report) print(out io.Writer) error {
	var b strings.Builder
	if !r.Good {
		fmt.Fprintln(&b, "REFUSED: a server would not put these files in service")
		for _, e := range r.Errors {
			fmt.Fprintf(&b, "  %s\n", e)
		}
	} else {
		fmt.Fprintln(&b, "good: a server that starts with these files puts them in service")
		r.printServed(&b)
		r.printClients(&b)
		list(&b, "warnings", r.Status.Warnings, func(w string) string { return w })
	}
	r.Against.print(&b)
	_, err := io.WriteString(out, b.String())
	return err
}

func list[T any](b *strings.Builder, title string, all []T, line func(T) string) {
	if len(all) > 0 {
		fmt.Fprintf(b, "\n%s\n", title)
	}
	for i, one := range all {
		if i == maxLines {
			fmt.Fprintf(b, "  and %d more: -json has them\n", len(all)-i)
			return
		}
		fmt.Fprintf(b, "  %s\n", line(one))
	}
}

func (r *report) printServed(b *strings.Builder) {
	if len(r.Served) == 0 {
		fmt.Fprintln(b, "\nserved: nothing, as there is no certificate for servers: good for a program that is only a client")
	}
	list(b, "served", r.Served, func(s served) string {
		to := s.Names
		if len(to) > 5 {
			to = append(to[:5:5], fmt.Sprintf("and %d more names", len(to)-5))
		}
		if s.Default {
			to = append(to[:len(to):len(to)], "any other name")
		}
		who := strings.Join(to, ", ")
		if s.OldClients {
			who += " (clients that do not support the key above)"
		}
		text := fmt.Sprintf("%s:\n    %s", who, describe(&s.Certificate))
		if len(s.NotFor) > 0 {
			text += fmt.Sprintf("\n    not valid for %s: clients send no address, so that they get this one", strings.Join(s.NotFor, ", "))
		}
		if len(s.Certificate.Names) == 0 {
			text += "\n    it has no subject alternative names: clients trust it for no name, whatever its common name is"
		}
		if s.ChainError != "" {
			text += "\n    not trusted with the CAs of -root-cas, or of this system: " + s.ChainError
		}
		return text
	})
	list(b, "CAs of servers", r.Status.RootCAs, func(c certmanager.CertificateInfo) string { return describe(&c) })
}

func (r *report) printClients(b *strings.Builder) {
	if len(r.Status.ClientCAs) == 0 {
		fmt.Fprintln(b, "\nclients: not asked for a certificate")
		return
	}
	list(b, "clients need a certificate of", r.Status.ClientCAs, func(c certmanager.CertificateInfo) string { return describe(&c) })
	list(b, "revocation lists", r.Status.CRLs, func(l certmanager.CRLInfo) string {
		text := fmt.Sprintf("%s: %d revoked", l.Issuer, l.Revoked)
		switch {
		case l.OutOfDate:
			text += ", OUT OF DATE since " + until(l.NextUpdate)
		case !l.NextUpdate.IsZero():
			text += ", the next is due " + until(l.NextUpdate)
		}
		return text
	})
	list(b, "these clients", r.Clients, func(c client) string {
		if c.LetIn {
			return fmt.Sprintf("%s (%s): accepted", c.File, c.Subject)
		}
		if c.Subject == "" {
			return fmt.Sprintf("%s: NO CERTIFICATE: %s", c.File, c.Error)
		}
		return fmt.Sprintf("%s (%s): REFUSED: %s", c.File, c.Subject, c.Error)
	})
}

func (a *against) print(b *strings.Builder) {
	switch {
	case a == nil:
		return
	case a.Error != "":
		fmt.Fprintf(b, "\n%s cannot be asked: %s\n", a.Address, a.Error)
		return
	}
	list(b, a.Address+" shows", a.Names, func(s shown) string {
		name := s.Name
		if name == "" {
			name = "any other name"
		}
		text := "OTHER"
		switch {
		case s.Same:
			text = "the same"
		case s.Certificate != nil:
			text = "OTHER: " + describe(s.Certificate)
		}
		if s.Note != "" {
			text += " (" + s.Note + ")"
		}
		return name + ": " + text
	})
	if a.Skipped > 0 {
		fmt.Fprintf(b, "  %d more names were not asked for\n", a.Skipped)
	}
}

func describe(c *certmanager.CertificateInfo) string {
	subject := c.Subject
	if subject == "" && len(c.Names) > 0 {
		subject = c.Names[0]
	}
	text := fmt.Sprintf("%s, serial %s, until %s", subject, c.Serial, until(c.NotAfter))
	if c.Origin != "" {
		text += ", " + c.Origin
	}
	return text
}

// until formats a time with its distance from now.
func until(t time.Time) string {
	left := time.Until(t)
	text := t.UTC().Format("2006-01-02 15:04:05 UTC")
	switch days := int(left.Hours() / 24); {
	case left < 0:
		return text + " (past)"
	case days > 1:
		return fmt.Sprintf("%s (in %d days)", text, days)
	}
	return fmt.Sprintf("%s (in %v)", text, left.Round(time.Minute))
}
