package pemfile_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager/internal/pemfile"
	"github.com/ergotls/ergotls/internal/needs"
)

// workshop is a folder in which programs write files.
type workshop struct {
	t   *testing.T
	dir string
}

func newWorkshop(t *testing.T) *workshop { return &workshop{t, t.TempDir()} }

func (w *workshop) run(program string, args ...string) {
	w.t.Helper()
	cmd := exec.Command(needs.Program(w.t, program), args...)
	cmd.Dir = w.dir
	out, err := cmd.CombinedOutput()
	require.NoError(w.t, err, "%s %v: %s", program, args, out)
}

func (w *workshop) openssl(args string) {
	w.t.Helper()
	w.run("openssl", strings.Fields(args)...)
}

func (w *workshop) write(name, data string) {
	w.t.Helper()
	require.NoError(w.t, os.WriteFile(filepath.Join(w.dir, name), []byte(data), 0o600))
}

func (w *workshop) read(name string) []byte {
	w.t.Helper()
	data, err := os.ReadFile(filepath.Join(w.dir, name))
	require.NoError(w.t, err)
	return data
}

// chain makes root.crt, ca.crt, leaf.crt and their keys.
func (w *workshop) chain() {
	w.t.Helper()
	w.write("ext", "[ca]\nbasicConstraints=critical,CA:true\n[leaf]\nsubjectAltName=DNS:localhost\n")
	w.openssl("ecparam -name prime256v1 -genkey -out root.key")
	w.openssl("req -x509 -new -key root.key -subj /CN=root -days 2 -out root.crt")
	for _, next := range [][2]string{{"root", "ca"}, {"ca", "leaf"}} {
		w.openssl("ecparam -name prime256v1 -genkey -out " + next[1] + ".key")
		w.openssl("req -new -key " + next[1] + ".key -subj /CN=" + next[1] + " -out " + next[1] + ".csr")
		w.openssl("x509 -req -in " + next[1] + ".csr -CA " + next[0] + ".crt -CAkey " + next[0] + ".key -CAcreateserial -days 1 -out " + next[1] + ".crt -extfile ext -extensions " + next[1])
	}
}

// Keys of every form that openssl writes, under its own titles and others.
func TestKeysOfOpenSSL(t *testing.T) {
	w := newWorkshop(t)
	w.openssl("genrsa -out rsa 2048") // PKCS #8
	w.openssl("rsa -in rsa -traditional -out rsa1")
	w.openssl("ecparam -name secp384r1 -genkey -out ec") // with EC PARAMETERS
	w.openssl("pkcs8 -topk8 -nocrypt -in ec -out ec8")
	w.openssl("genpkey -algorithm ed25519 -out ed")
	for _, name := range []string{"rsa", "rsa1", "ec", "ec8", "ed"} {
		want := w.read(name)
		block, rest := pem.Decode(want)
		if block.Type == "EC PARAMETERS" {
			block, _ = pem.Decode(rest)
		}
		w.openssl("pkey -in " + name + " -pubout -outform der -out public")
		public := w.read("public")
		check := func(what string, data []byte) {
			t.Helper()
			f, err := pemfile.Parse(data)
			require.NoError(t, err, "%s %s", name, what)
			keys, err := f.Keys()
			require.NoError(t, err, "%s %s", name, what)
			require.Len(t, keys, 1)
			der, err := x509.MarshalPKIXPublicKey(keys[0].Public())
			require.NoError(t, err)
			assert.Equal(t, public, der, "%s %s", name, what)
		}
		check("as it is", want)
		for _, title := range []string{"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ANY PRIVATE KEY"} {
			check(title, pem.EncodeToMemory(&pem.Block{Type: title, Bytes: block.Bytes}))
		}
		check("DER", block.Bytes)
		for what, data := range spoiled(want) {
			check(what, data)
		}
	}
}

// spoiled are forms that a PEM file takes on its way through editors, mail and other systems.
func spoiled(data []byte) map[string][]byte {
	text := string(data)
	return map[string][]byte{
		"byte-order mark":    []byte("\xef\xbb\xbf" + text),
		"CRLF":               []byte(strings.ReplaceAll(text, "\n", "\r\n")),
		"CR":                 []byte(strings.ReplaceAll(text, "\n", "\r")),
		"indented":           []byte("tls:\n    " + strings.ReplaceAll(text, "\n", "\n    ")),
		"tabs":               []byte("\t" + strings.ReplaceAll(text, "\n", "\n\t")),
		"spaces at the ends": []byte(strings.ReplaceAll(text, "\n", "  \n")),
		"commented":          []byte("# what is between -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----\n# -----BEGIN X-----\n" + text),
		"no last newline":    []byte(strings.TrimSpace(text)),
		"blank lines":        []byte("\n\n" + text + "\n\n"),
	}
}

func TestCertificatesOfOpenSSL(t *testing.T) {
	w := newWorkshop(t)
	w.chain()
	w.openssl("x509 -in leaf.crt -trustout -setalias me -out trusted")
	w.openssl("x509 -in leaf.crt -text -out text")
	w.openssl("x509 -in leaf.crt -outform der -out der")
	leaf, ca := w.read("leaf.crt"), w.read("ca.crt")
	block, _ := pem.Decode(leaf)
	files := spoiled(leaf)
	for _, name := range []string{"leaf.crt", "trusted", "text", "der"} {
		files[name] = w.read(name)
	}
	files["X509 CERTIFICATE"] = pem.EncodeToMemory(&pem.Block{Type: "X509 CERTIFICATE", Bytes: block.Bytes})
	files["beside other things"] = bytes.Join([][]byte{w.read("leaf.csr"), w.read("leaf.key"), leaf}, nil)
	for what, data := range files {
		f, err := pemfile.Parse(data)
		require.NoError(t, err, what)
		found, err := f.Certificates()
		require.NoError(t, err, what)
		certs, aside := found.All, found.Aside
		require.Empty(t, aside, what)
		require.Len(t, certs, 1, what)
		assert.Equal(t, block.Bytes, certs[0].Raw, what)
	}
	f, err := pemfile.Parse(append(bytes.TrimSpace(leaf), ca...)) // joined without a newline between
	require.NoError(t, err)
	found, err := f.Certificates()
	require.NoError(t, err)
	certs := found.All
	assert.Len(t, certs, 2)
}

// What cannot be read is named, with the command that converts it. The commands are run.
func TestWhatIsNotReadIsNamed(t *testing.T) {
	w := newWorkshop(t)
	w.chain()
	w.openssl("pkey -in leaf.key -pubout -out public")
	w.openssl("pkcs8 -topk8 -in leaf.key -passout pass:geheim -out encrypted")
	w.openssl("pkcs8 -topk8 -in leaf.key -passout pass:geheim -outform der -out encrypted.der")
	w.openssl("ec -in leaf.key -aes128 -passout pass:geheim -out encrypted.old")
	w.openssl("crl2pkcs7 -nocrl -certfile leaf.crt -out p7")
	w.openssl("crl2pkcs7 -nocrl -certfile leaf.crt -outform der -out p7.der")
	w.openssl("pkcs12 -export -in leaf.crt -inkey leaf.key -passout pass: -out p12")
	w.openssl("req -in leaf.csr -outform der -out csr.der")
	w.openssl("dsaparam -out dsa.params 1024")
	w.run("ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", "ssh")
	leaf, key := string(w.read("leaf.crt")), string(w.read("leaf.key"))
	certificates := func(f *pemfile.File) error { _, err := f.Certificates(); return err }
	keys := func(f *pemfile.File) error { _, err := f.Keys(); return err }
	lists := func(f *pemfile.File) error { _, err := f.Lists(); return err }
	for _, c := range []struct {
		data string
		take func(*pemfile.File) error
		says string
	}{
		{key, certificates, "it holds no certificate, but"},
		{leaf, keys, "it holds no private key, but a certificate"},
		{leaf, lists, "it holds no revocation list, but a certificate"},
		{string(w.read("leaf.csr")), certificates, "a certificate signing request"},
		{string(w.read("csr.der")), certificates, "a certificate signing request"},
		{string(w.read("public")), keys, "a public key"},
		{string(w.read("p7")), certificates, "openssl pkcs7 -print_certs"},
		{string(w.read("p7.der")), certificates, "openssl pkcs7 -print_certs"},
		{string(w.read("p12")), certificates, "openssl pkcs12 -nodes"},
		{string(w.read("ssh")), keys, "ssh-keygen -p -m PEM"},
		{string(w.read("ssh.pub")), keys, "public key of OpenSSH"},
		{string(w.read("encrypted")), keys, "openssl pkey"},
		{string(w.read("encrypted.der")), keys, "openssl pkey"},
		{string(w.read("encrypted.old")), keys, "openssl pkey"},
		{string(w.read("dsa.params")), keys, `"DSA PARAMETERS"`},
		{leaf[:len(leaf)-40], certificates, `"CERTIFICATE" that begins in line 1 is damaged or cut off`},
		{leaf + leaf[:len(leaf)-40], certificates, "damaged or cut off"},
		{leaf + leaf[:200] + leaf, certificates, "damaged or cut off"},
		{leaf + leaf[:15], certificates, "its last PEM block is cut off"},
		{leaf + leaf[:3], certificates, "its last PEM block is cut off"},
		{strings.Replace(leaf, "A", "?", 1), certificates, "damaged"},
		{"", certificates, "it is empty"},
		{"\n \n", certificates, "it is empty"},
		{utf16Text(leaf), certificates, "iconv -f UTF-16"},
		{strings.ReplaceAll(leaf, "\n", `\n`), certificates, "printf"},
		{"-----BEGIN of nothing\n", certificates, "no line of it begins a block"},
		{"\xfe\xed\xfe\xed\x00\x00", certificates, "keytool"},
		{"LS0tLS1CRUdJTiBDRVJU", certificates, "base64 -d"},
		{"MIIBkTCB+w", certificates, "without the BEGIN and END lines"},
		{"<!DOCTYPE html>", certificates, "HTML"},
		{"0\x80", certificates, "BER"},
		{"0\x03abc", certificates, "DER of an unknown kind"},
		{"hello", certificates, "neither PEM nor DER"},
	} {
		f, err := pemfile.Parse([]byte(c.data))
		if err == nil {
			err = c.take(f)
		}
		assert.ErrorContains(t, err, c.says)
		if c.says == "openssl pkey" {
			assert.ErrorIs(t, err, pemfile.ErrEncrypted)
		}
	}

	for name, command := range map[string][]string{
		"p7": {"openssl", "pkcs7", "-print_certs", "-in", "p7", "-out", "new"}, "p7.der": {"openssl", "pkcs7", "-print_certs", "-inform", "der", "-in", "p7.der", "-out", "new"},
		"p12": {"openssl", "pkcs12", "-nodes", "-passin", "pass:", "-in", "p12", "-out", "new"},
	} {
		w.run(command[0], command[1:]...)
		f, err := pemfile.Parse(w.read("new"))
		require.NoError(t, err, name)
		assert.NoError(t, certificates(f), name)
	}
	w.run("ssh-keygen", "-q", "-p", "-m", "PEM", "-N", "", "-f", "ssh")
	f, err := pemfile.Parse(w.read("ssh"))
	require.NoError(t, err)
	assert.NoError(t, keys(f))
}

func utf16Text(s string) string {
	b := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return string(b)
}

// PKCS #12 of openssl, old and new ciphers, whatever comes first in it, and of Java.
func TestPKCS12(t *testing.T) {
	w := newWorkshop(t)
	w.chain()
	w.openssl("pkcs12 -export -in leaf.crt -inkey leaf.key -certfile ca.crt -passout pass:geheim -out modern")
	w.openssl("pkcs12 -export -legacy -descert -in leaf.crt -inkey leaf.key -certfile ca.crt -passout pass:geheim -out legacy")
	w.openssl("pkcs12 -export -legacy -in leaf.crt -inkey leaf.key -certfile ca.crt -passout pass:geheim -out rc2")
	w.openssl("pkcs12 -export -certpbe NONE -keypbe NONE -in leaf.crt -inkey leaf.key -certfile ca.crt -passout pass:geheim -out plain")
	w.openssl("pkcs12 -export -macalg sha256 -keypbe aes-128-cbc -in leaf.crt -inkey leaf.key -certfile ca.crt -passout pass:geheim -out aes128")
	w.openssl("pkcs12 -export -nokeys -in leaf.crt -passout pass:geheim -out nokey")
	w.write("root first", string(w.read("root.crt"))+string(w.read("ca.crt"))+string(w.read("leaf.crt"))+string(w.read("leaf.key")))
	w.run("openssl", "pkcs12", "-export", "-in", "root first", "-passout", "pass:geheim", "-out", "first")
	w.run("keytool", "-importkeystore", "-srckeystore", "modern", "-srcstorepass", "geheim", "-destkeystore", "java", "-deststoretype", "pkcs12", "-deststorepass", "geheim")
	w.run("keytool", "-genkeypair", "-keyalg", "EC", "-alias", "two", "-dname", "CN=two", "-keystore", "java2", "-storetype", "pkcs12", "-storepass", "geheim")
	w.run("keytool", "-genkeypair", "-keyalg", "EC", "-alias", "three", "-dname", "CN=three", "-keystore", "java2", "-storetype", "pkcs12", "-storepass", "geheim")
	leaf, _ := pem.Decode(w.read("leaf.crt"))
	for name, certs := range map[string]int{"modern": 2, "legacy": 2, "rc2": 2, "plain": 2, "aes128": 2, "first": 3, "java": 2} {
		key, got, err := pemfile.PKCS12(w.read(name), "geheim")
		require.NoError(t, err, name)
		assert.Len(t, got, certs, name)
		found := false
		for _, cert := range got {
			found = found || bytes.Equal(cert.Raw, leaf.Bytes) && cert.PublicKey.(*ecdsa.PublicKey).Equal(key.Public())
		}
		assert.True(t, found, "%s: the leaf and its key", name)
		_, _, err = pemfile.PKCS12(w.read(name), "falsch")
		require.ErrorContains(t, err, "of this password", name)
		require.NotContains(t, err.Error(), "falsch")
	}
	for name, says := range map[string]string{
		"nokey": "private key missing", "java2": "one key", "leaf.crt": "it is not a PKCS #12 file, but a certificate",
		"leaf.key": "it is not a PKCS #12 file, but", "ext": "it is not a PKCS #12 file: it is neither PEM nor DER",
	} {
		_, _, err := pemfile.PKCS12(w.read(name), "geheim")
		assert.ErrorContains(t, err, says, name)
	}
	w.openssl("pkcs12 -export -in leaf.crt -keypbe NONE -certpbe NONE -nomac -inkey leaf.key -passout pass: -out nomac")
	_, _, err := pemfile.PKCS12(w.read("nomac"), "")
	require.NoError(t, err)
}

// A few bytes of a file must not keep a processor busy for an hour.
func TestPKCS12Iterations(t *testing.T) {
	w := newWorkshop(t)
	w.chain()
	for _, mac := range []string{"", "-nomaciter"} {
		w.openssl("pkcs12 -export -in leaf.crt -inkey leaf.key -passout pass:x -out p12 -iter 100000 " + mac)
		data := w.read("p12")
		if mac == "" {
			_, _, err := pemfile.PKCS12(data, "x")
			require.NoError(t, err)
		}
		huge := bytes.ReplaceAll(data, []byte{2, 3, 0x01, 0x86, 0xa0}, []byte{2, 3, 0x7f, 0xff, 0xff})
		require.NotEqual(t, data, huge)
		_, _, err := pemfile.PKCS12(huge, "x")
		require.ErrorContains(t, err, "iterations")
	}

	// go-pkcs12 takes a salt of any class, and without a password no MAC is needed.
	w.openssl("pkcs12 -export -in leaf.crt -inkey leaf.key -passout pass: -out p12 -iter 100000 -nomac")
	parts := bytes.SplitAfter(w.read("p12"), []byte{2, 3, 0x01, 0x86, 0xa0})
	require.Len(t, parts, 2)
	kdf := parts[0][len(parts[0])-15:]
	require.Equal(t, []byte{4, 8}, kdf[:2], "the salt")
	kdf[0] = 0x84
	copy(kdf[12:], "\x7f\xff\xff")
	_, _, err := pemfile.PKCS12(bytes.Join(parts, nil), "")
	require.ErrorContains(t, err, "iterations")
}

// What OpenSSL says about the use of a CA counts, as in openssl verify.
func TestTrustOfOpenSSL(t *testing.T) {
	w := newWorkshop(t)
	w.chain()
	for args, want := range map[string][2]bool{ // for servers, for clients
		"-trustout":                                         {true, true},
		"-setalias x -trustout":                             {true, true},
		"-addtrust serverAuth":                              {true, false},
		"-addtrust clientAuth -addtrust serverAuth":         {true, true},
		"-addtrust anyExtendedKeyUsage -setalias x":         {true, true},
		"-addtrust emailProtection":                         {false, false},
		"-addreject clientAuth":                             {true, false},
		"-addreject emailProtection":                        {true, true},
		"-addreject anyExtendedKeyUsage":                    {false, false},
		"-addtrust serverAuth -addreject serverAuth":        {false, false},
		"-addreject serverAuth -addreject clientAuth":       {false, false},
		"-addtrust clientAuth -addreject serverAuth":        {false, true},
		"-addtrust clientAuth -setalias x -addreject 1.2.3": {false, true},
	} {
		w.openssl("x509 -in root.crt " + args + " -trustout -out trusted.crt")
		f, err := pemfile.Parse(append(w.read("trusted.crt"), w.read("ca.crt")...))
		require.NoError(t, err)
		for i, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			found, err := f.CAs(usage)
			require.NoError(t, err)
			certs, rejected := found.All, found.Aside
			assert.False(t, slices.ContainsFunc(rejected, func(a pemfile.Aside) bool { return !a.Distrusted }))
			assert.Equal(t, want[i], len(rejected) == 0, "%s, %d: %v", args, i, rejected)
			assert.Len(t, certs, 2-len(rejected))
			purpose := []string{"sslserver", "sslclient"}[i]
			cmd := exec.Command("openssl", "verify", "-no-CApath", "-no-CAfile", "-CAfile", "trusted.crt", "-purpose", purpose, "-untrusted", "ca.crt", "leaf.crt")
			cmd.Dir = w.dir
			out, verified := cmd.CombinedOutput()
			assert.Equal(t, verified == nil, want[i], "openssl verify, %s, %s: %s", args, purpose, out)
		}
		found, err := f.CAs(x509.ExtKeyUsageAny)
		require.NoError(t, err)
		certs, rejected := found.All, found.Aside
		assert.Empty(t, rejected)
		assert.Len(t, certs, 2)
		_, err = f.Certificates()
		require.NoError(t, err)
	}
	w.openssl("x509 -in root.crt -addreject clientAuth -trustout -out trusted.crt")
	f, err := pemfile.Parse(w.read("trusted.crt"))
	require.NoError(t, err)
	_, err = f.CAs(x509.ExtKeyUsageClientAuth)
	require.ErrorContains(t, err, `("CN=root") is marked as not trusted`)
}

// Keys under the title of the other form, and CAs with keys that crypto/x509 does not know.
func TestTitlesAndKindsOfKeys(t *testing.T) {
	w := newWorkshop(t)
	w.chain()
	w.openssl("pkcs8 -topk8 -in leaf.key -passout pass:x -out encrypted.key")
	for data, encrypted := range map[string]bool{
		strings.ReplaceAll(string(w.read("encrypted.key")), "ENCRYPTED PRIVATE", "PRIVATE"):    true,
		strings.ReplaceAll(string(w.read("encrypted.key")), "ENCRYPTED PRIVATE", "EC PRIVATE"): true,
		strings.ReplaceAll(string(w.read("leaf.key")), " PRIVATE", " ENCRYPTED PRIVATE"):       false,
	} {
		f, err := pemfile.Parse([]byte(data))
		require.NoError(t, err)
		_, err = f.Keys()
		if encrypted {
			require.ErrorIs(t, err, pemfile.ErrEncrypted)
			require.ErrorContains(t, err, "openssl pkey")
		} else {
			require.NoError(t, err)
		}
	}
	for _, kind := range []string{"ed448", "rsa-pss -pkeyopt rsa_keygen_bits:2048"} {
		w.openssl("req -x509 -nodes -newkey " + kind + " -keyout odd.key -subj /CN=odd -days 2 -out odd.crt")
		f, err := pemfile.Parse(append(w.read("odd.crt"), w.read("root.crt")...))
		require.NoError(t, err)
		found, err := f.CAs(x509.ExtKeyUsageClientAuth)
		require.NoError(t, err)
		certs, aside := found.All, found.Aside
		assert.Len(t, certs, 1)
		require.Len(t, aside, 1)
		assert.ErrorContains(t, aside[0].Err, `certificate 1 of 2 ("CN=odd") cannot be read: its key is of a kind`)
	}
}
