package docs_test

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Certificates for net/http, and CAs for tests, come without Ergo: go mod tidy of an application
// also asks for what the tests of the packages import that it imports. The names are those of
// packages and folders of packages which need meta.
func TestOnlyActorsNeedErgo(t *testing.T) {
	actors := regexp.MustCompile(`^github\.com/ergotls/ergotls/` +
		`(meta|status|metrics/prometheus|examples|bench|interop|docs|internal/echotest|tlstest/acmetest/e2e)(/|_test |\.test$| |$)`)
	// The pattern work is all packages of the workspace, and with GOWORK=off those of the module.
	output, err := exec.Command("go", "list", "-test", "-f", `{{.ImportPath}};{{join .Deps " "}}`, "work").Output()
	require.NoError(t, err)
	packages := 0
	for line := range strings.Lines(string(output)) {
		path, deps, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ";")
		packages++
		if !actors.MatchString(path) {
			assert.NotContains(t, " "+deps, " ergo.services/", path)
		}
	}
	assert.Greater(t, packages, 20)
}
