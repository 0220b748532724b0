//go:build upstream

package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
)

func TestCluster(t *testing.T) {
	port := needs.Port(t)
	front, back, err := start(port)
	require.NoError(t, err)
	defer back.Stop()
	defer front.Stop()
	conn, err := tls.Dial("tcp", fmt.Sprintf("localhost:%d", port), &tls.Config{InsecureSkipVerify: true})
	require.NoError(t, err)
	defer conn.Close()
	lines := bufio.NewReader(conn)
	for i, line := range []string{"hello", "again"} {
		_, err := fmt.Fprintln(conn, line)
		require.NoError(t, err)
		got, err := lines.ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprintf("%d: %s\n", i+1, line), got)
	}
}
