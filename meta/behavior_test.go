package meta_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Ergo 3.3.1 has a callback more than 3.3.0, of a type that 3.3.0 lacks. The package builds with an
// interface that has callbacks which no release has yet.
func TestBuildsWithLaterCallbacks(t *testing.T) {
	list := exec.Command("go", "list", "-f", "{{range .GoFiles}}{{$.Dir}}/{{.}}\n{{end}}", "ergo.services/ergo/gen")
	files, err := list.Output()
	require.NoError(t, err)
	const declaration = "type MetaBehavior interface {\n"
	replace := map[string]string{}
	for file := range strings.FieldsSeq(string(files)) {
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		if before, after, found := strings.Cut(string(source), declaration); found {
			replace[file] = filepath.Join(t.TempDir(), "later.go")
			later := before + "type LaterMessage struct{}\n" +
				declaration + "HandleResponse(LaterMessage) error; HandleLater(from PID, messages ...LaterMessage)\n" + after
			require.NoError(t, os.WriteFile(replace[file], []byte(later), 0o600))
		}
	}
	require.Len(t, replace, 1, "the file of gen that declares MetaBehavior")
	overlay := filepath.Join(t.TempDir(), "overlay.json")
	content, err := json.Marshal(map[string]any{"Replace": replace})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(overlay, content, 0o600))
	output, err := exec.Command("go", "build", "-overlay", overlay, ".").CombinedOutput()
	assert.NoError(t, err, "%s", output)
}
