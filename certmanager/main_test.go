package certmanager_test

import (
	"flag"
	"log/slog"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ergotls/ergotls/certmanager"
)

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "6") // those that are parallel mostly wait
	slog.SetDefault(slog.New(recorded.logger()))
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if code == 0 {
			code = recorded.check()
		}
		os.Exit(code)
	}))
}

// newManager makes a manager that is closed with the test.
func newManager(t testing.TB, o certmanager.Options) *certmanager.Manager {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Logger = slog.New(slog.NewMultiHandler(o.Logger.Handler(), recorded.logger()))
	o.Source = recordKeys(o.Source)
	m, err := certmanager.New(o)
	require.NoError(t, err)
	m.Subscribe(recorded.event)
	t.Cleanup(func() {
		recorded.manager(m)
		require.NoError(t, m.Close())
	})
	return m
}

// tryNew is New of a manager that may not come to be.
func tryNew(o certmanager.Options) (*certmanager.Manager, error) {
	o.Source = recordKeys(o.Source)
	m, err := certmanager.New(o)
	recorded.text(err)
	return m, err
}
