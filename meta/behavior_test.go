package meta_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Ergo 3.3.1 has a callback more than 3.3.0, of a type that 3.3.0 lacks. The package builds against
// a copy of the engine whose interface has callbacks that no release has yet.
func TestBuildsWithLaterCallbacks(t *testing.T) {
	engine := filepath.Join("..", "engine")
	if _, err := os.Stat(engine); err != nil {
		t.Skip("the engine is not part of the module: this test needs the repository")
	}
	later := t.TempDir()
	require.NoError(t, os.CopyFS(later, os.DirFS(engine)))
	files, err := filepath.Glob(filepath.Join(later, "gen", "*.go"))
	require.NoError(t, err)
	const declaration = "type MetaBehavior interface {\n"
	changed := 0
	for _, file := range files {
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		before, after, found := strings.Cut(string(source), declaration)
		if !found {
			continue
		}
		source = []byte(before + "type LaterMessage struct{}\n" +
			declaration + "HandleResponse(LaterMessage) error; HandleLater(from PID, messages ...LaterMessage)\n" + after)
		require.NoError(t, os.WriteFile(file, source, 0o600))
		changed++
	}
	require.Equal(t, 1, changed, "files of gen that declare MetaBehavior")
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	work := filepath.Join(t.TempDir(), "go.work")
	require.NoError(t, os.WriteFile(work, fmt.Appendf(nil, "go 1.26.0\nuse %q\nreplace ergo.services/ergo => %q\n", root, later), 0o600))
	build := exec.Command("go", "build", ".")
	build.Env = append(os.Environ(), "GOWORK="+work)
	output, err := build.CombinedOutput()
	assert.NoError(t, err, "%s", output)
}
