package tlstest_test

import (
	"crypto/tls"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/tlstest"
)

func TestReplay(t *testing.T) {
	for version, number := range versions {
		t.Run(version, func(t *testing.T) {
			ca := tlstest.NewCA(t)
			resumed := make(chan bool, 1)
			server := ca.ServerConfig(t)
			server.MaxVersion = number
			server.VerifyConnection = func(state tls.ConnectionState) error {
				resumed <- state.DidResume
				return nil
			}
			server.SetSessionTicketKeys([][32]byte{{1}})
			replay := new(tlstest.Replay)
			client := ca.ClientConfig(t, "localhost")
			client.ClientSessionCache = replay
			connect := func() bool {
				serverErr, clientErr := handshake(t, server, client)
				require.NoError(t, errors.Join(serverErr, clientErr))
				return <-resumed
			}

			assert.Nil(t, replay.Session())
			assert.False(t, connect())
			session := replay.Session()
			require.NotNil(t, session)
			for range 3 {
				assert.True(t, connect())
			}

			server.SetSessionTicketKeys([][32]byte{{2}})
			assert.False(t, connect(), "another key cannot open the ticket")
			server.SetSessionTicketKeys([][32]byte{{3}, {1}})
			assert.True(t, connect(), "an old ticket is presented long after newer ones came")
			assert.Same(t, session, replay.Session())

			client.ServerName, client.InsecureSkipVerify = "another.test", true
			assert.True(t, connect(), "the ticket is presented under another name too")
		})
	}
}
