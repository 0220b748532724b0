//go:build upstream

package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCluster(t *testing.T) {
	free, err := net.Listen("tcp", "localhost:0")
	require.NoError(t, err)
	require.NoError(t, free.Close())
	front, back, err := start(uint16(free.Addr().(*net.TCPAddr).Port))
	require.NoError(t, err)
	defer back.Stop()
	defer front.Stop()
	conn, err := tls.Dial("tcp", free.Addr().String(), &tls.Config{InsecureSkipVerify: true})
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
