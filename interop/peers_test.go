package interop

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
)

// The programs in testdata, each a client and a server in another language.

func node(role string, s session) command {
	return command{args: []string{"node", testdata("peer.js"), role, fmt.Sprint(s.port)}, env: s.environment(role)}
}

func python(role string, s session) command {
	return command{args: []string{"python3", testdata("peer.py"), role, fmt.Sprint(s.port)}, env: s.environment(role)}
}

func erlang(role string, s session) command {
	return command{args: []string{"escript", testdata("peer.escript"), role, fmt.Sprint(s.port)}, env: s.environment(role)}
}

func java(t *testing.T, role string, s session) command {
	needs.Program(t, "javac")
	classes, err := javaClasses()
	require.NoError(t, err)
	// The two options make it start sooner.
	return command{args: []string{"java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", classes, "Peer", role, fmt.Sprint(s.port)}, env: s.environment(role)}
}

// environment tells a program in testdata what it is to do.
func (s session) environment(role string) []string {
	env := map[string]string{"TLS": s.tls, "CONNECTIONS": "1"}
	name := "server"
	if role == "client" {
		name, env["CA"] = s.client, "root.crt"
	} else if s.mutual {
		env["CA"], env["CRL"] = "root.crt", "crl.pem"
	}
	if name != "" {
		env["CERT"], env["KEY"] = name+".crt", name+".key"
	}
	if s.alpn {
		env["ALPN"] = alpn
	}
	if s.twice {
		env["CONNECTIONS"] = "2"
	}
	var list []string
	for key, value := range env {
		list = append(list, key+"="+value)
	}
	return list
}

func testdata(name string) string {
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		panic(err)
	}
	return path
}

// javaClasses compiles the Java program once: `java Peer.java` would do so at each start.
var javaClasses = sync.OnceValues(func() (string, error) {
	classes := certs.file("classes")
	return classes, output("javac", "-d", classes, testdata("Peer.java"))
})

// nssDB gives the database of certificates and keys that NSS has in place of files.
func nssDB(t *testing.T) string {
	needs.Program(t, "certutil")
	db, err := makeNSSDB()
	require.NoError(t, err)
	return db
}

var makeNSSDB = sync.OnceValues(func() (string, error) {
	db := "sql:" + certs.file("nss")
	if err := output("mkdir", certs.file("nss")); err != nil {
		return "", err
	}
	if err := output("certutil", "-N", "-d", db, "--empty-password"); err != nil {
		return "", err
	}
	if err := output("certutil", "-A", "-d", db, "-n", "root", "-t", "CT,C,", "-i", certs.file("root.crt")); err != nil {
		return "", err
	}
	for _, name := range []string{"server", "client", "stranger", "expired", "revoked"} {
		p12 := certs.file(name + ".p12")
		if err := output("openssl", "pkcs12", "-export", "-name", name, "-in", certs.file(name+".pem"), "-passout", "pass:", "-out", p12); err != nil {
			return "", err
		}
		if err := output("pk12util", "-i", p12, "-d", db, "-W", ""); err != nil {
			return "", err
		}
	}
	crl := certs.file("crl.der")
	return db, errors.Join(
		output("openssl", "crl", "-in", certs.file("crl.pem"), "-outform", "der", "-out", crl),
		output("crlutil", "-I", "-d", db, "-i", crl, "-B"))
})

// output runs a program to its end. The error has what it said.
func output(name string, args ...string) error {
	text, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, text)
	}
	return nil
}
