package docs_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	wayStep  = regexp.MustCompile(`(?m)^    .*\S\s+(\w+/\S+\.go)$`)
	wayNames = regexp.MustCompile(`\b[\w]+\.(\w+)\b`)
)

// The ways through the code lead through functions that are in the files beside them, at most four
// for each way.
func TestArchitecture(t *testing.T) {
	page, err := os.ReadFile("../ARCHITECTURE.md")
	require.NoError(t, err)
	ways := regexp.MustCompile(`(?m)^## `).Split(string(page), -1)[1:]
	require.Len(t, ways, 6)
	for _, way := range ways {
		files := make(map[string]bool)
		for _, step := range wayStep.FindAllStringSubmatch(way, -1) {
			line, file := step[0], step[1]
			files[file] = true
			text, err := os.ReadFile("../" + file)
			if !assert.NoError(t, err, line) {
				continue
			}
			for _, name := range wayNames.FindAllStringSubmatch(line[:len(line)-len(file)], -1) {
				if name[1] != "Load" { // of Source: whichever is in use
					assert.Regexp(t, `(?m)^func (\(.*\) )?`+name[1]+`\(`, string(text), "%s has no %s", file, name[1])
				}
			}
		}
		assert.NotEmpty(t, files, way)
		assert.LessOrEqual(t, len(files), 4, way)
	}
}
