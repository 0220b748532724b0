package docs_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// makesManager is the statement that makes a manager.
var makesManager = regexp.MustCompile(`(?s)\tcerts, err := certmanager\.New\(.*?\}\)\n`)

// The program in README.md answers its clients, and each snippet that makes another manager can
// stand in the program in place of the first.
func TestReadme(t *testing.T) {
	needs.Long(t)
	text, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	var program string
	var managers []string
	for _, found := range snippet.FindAllStringSubmatch(string(text), -1) {
		if strings.HasPrefix(found[1], "package main\n") {
			require.Empty(t, program, "one program")
			program = found[1]
		}
		managers = append(managers, makesManager.FindAllString(found[1], -1)...)
	}
	require.Contains(t, program, "Port: 4433")
	require.Greater(t, len(managers), 1)
	ca := tlstest.NewCA(t)
	for i, other := range managers {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.Mkdir(filepath.Join(dir, "certs"), 0o700))
			ca.Issue(t, tlstest.Leaf{}).Files(t, filepath.Join(dir, "certs"), "server")
			require.NoError(t, os.WriteFile(filepath.Join(dir, "certs", "root.crt"), ca.PEM(), 0o600))
			port := needs.Port(t)
			code := strings.Replace(program, "Port: 4433", fmt.Sprintf("Port: %d", port), 1)
			code = strings.Replace(code, managers[0], other, 1)
			if strings.Contains(other, "acme.Source{") {
				code = strings.Replace(code, "certmanager\"\n", "certmanager\"\n\t\"github.com/ergotls/ergotls/certmanager/acme\"\n", 1)
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(code), 0o600))
			output, err := exec.Command("go", "build", "-o", filepath.Join(dir, "echo"), filepath.Join(dir, "main.go")).CombinedOutput()
			require.NoError(t, err, "%s", output)
			if !strings.Contains(other, "certmanager.Files{") {
				return // it needs a public host
			}
			echo := exec.Command(filepath.Join(dir, "echo"))
			echo.Dir = dir
			require.NoError(t, echo.Start())
			t.Cleanup(func() { echo.Process.Kill(); echo.Wait() })
			require.Eventually(t, func() bool {
				conn, err := net.Dial("tcp", fmt.Sprintf("localhost:%d", port))
				return err == nil && conn.Close() == nil
			}, 20*time.Second, 10*time.Millisecond, "it listens")
			client := &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}
			if strings.Contains(other, "ClientCAs:") {
				assert.ErrorContains(t, hello(port, client), "certificate required")
				client.Certificates = []tls.Certificate{ca.Issue(t, tlstest.Leaf{CommonName: "alice"}).Certificate()}
			}
			assert.NoError(t, hello(port, client))
		})
	}
}

// hello says hello to a server and hears it.
func hello(port uint16, config *tls.Config) error {
	conn, err := tls.Dial("tcp", fmt.Sprintf("localhost:%d", port), config)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 5))
	return err
}

// Every option is in README.md with its default, and in the table for those who come from Ergo.
func TestEveryOptionIsListed(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	fromErgo, err := os.ReadFile("from-ergo.md")
	require.NoError(t, err)
	for _, options := range []any{meta.TCPServerOptions{}, meta.TCPConnectionOptions{}} {
		for _, field := range reflect.VisibleFields(reflect.TypeOf(options)) {
			assert.True(t, strings.Contains(string(readme), "`"+field.Name+"`"), "README.md misses %T.%s", options, field.Name)
			assert.True(t, strings.Contains(string(fromErgo), "`"+field.Name+"`"), "from-ergo.md misses %T.%s", options, field.Name)
		}
	}
}
