// Package docs_test holds the pages of this folder to the code: what a page shows compiles, what it
// names is there.
package docs_test

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // where managers write
	// Ergo 3.1 keeps a goroutine that waits for signals when its node has ended.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("ergo.services/ergo/node.(*node).SetCTRLC.func1"))
}

var (
	snippet  = regexp.MustCompile("(?ms)^```go\n(.*?)^```$")
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	testName = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w*`)
)

// pages gives the text of all pages of the repository, those of this folder by their name and
// others by a path that begins with "../".
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for path, text := range files(t, ".md", func(string) bool { return true }) {
		all[strings.TrimPrefix(filepath.ToSlash(path), "../docs/")] = text
	}
	return all
}

// goFiles gives the text of every Go file of the repository, by path, for which want returns true.
func goFiles(t *testing.T, want func(path string) bool) map[string]string {
	t.Helper()
	return files(t, ".go", want)
}

func files(t *testing.T, ext string, want func(path string) bool) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != ".." && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case entry.IsDir() || filepath.Ext(path) != ext || !want(path):
			return nil
		}
		text, err := os.ReadFile(path)
		all[path] = string(text)
		return err
	}))
	require.NotEmpty(t, all)
	return all
}

// words makes texts comparable that are indented or aligned differently.
func words(text string) string { return strings.Join(strings.Fields(text), " ") }

// A snippet of Go is the text of a file that is compiled, an example's or a test's. README's
// program is compiled by TestReadme.
func TestSnippetsCompile(t *testing.T) {
	var code []string
	for _, text := range goFiles(t, func(string) bool { return true }) {
		code = append(code, words(text))
	}
	count := 0
	for path, page := range pages(t) {
		for _, found := range snippet.FindAllStringSubmatch(page, -1) {
			count++
			if path == "../README.md" && (strings.HasPrefix(found[1], "package main\n") || makesManager.MatchString(found[1])) {
				continue // TestReadme compiles it
			}
			want, is := words(found[1]), false
			for _, text := range code {
				is = is || strings.Contains(text, want)
			}
			assert.True(t, is, "%s: this is in no .go file; put it into an example:\n%s", path, found[1])
		}
	}
	assert.GreaterOrEqual(t, count, 20, "the pages have snippets")
}

func TestLinksLeadToFiles(t *testing.T) {
	for path, page := range pages(t) {
		for _, found := range link.FindAllStringSubmatch(page, -1) {
			target, _, _ := strings.Cut(found[1], "#")
			if strings.Contains(target, "://") || target == "" {
				continue
			}
			_, err := os.Stat(filepath.Join(filepath.Dir(path), target))
			assert.NoError(t, err, "%s links to it", path)
		}
	}
}

// A test that a page names as proof is there.
func TestNamedTestsExist(t *testing.T) {
	var code strings.Builder
	for _, text := range goFiles(t, func(path string) bool { return strings.HasSuffix(path, "_test.go") }) {
		code.WriteString(text)
	}
	for path, page := range pages(t) {
		for _, name := range testName.FindAllString(page, -1) {
			assert.True(t, strings.Contains(code.String(), "\nfunc "+name+"("), "%s names %s, which is no test", path, name)
		}
	}
}

// The index leads to every page.
func TestIndexIsComplete(t *testing.T) {
	index := pages(t)["README.md"]
	for path := range pages(t) {
		if path != "README.md" && !strings.HasPrefix(path, "../") {
			assert.Contains(t, index, "("+path+")")
		}
	}
}

// An example has a line in the list, is short enough to be read at once (mtls, hsm and chat, which
// are several files, in parts that are), and a test runs it, beside it or by its path.
func TestExamples(t *testing.T) {
	list, err := os.ReadFile("../examples/README.md")
	require.NoError(t, err)
	lines, tested, tests := map[string]int{}, map[string]bool{}, ""
	for path, text := range goFiles(t, func(string) bool { return true }) {
		path = filepath.ToSlash(path)
		rest, is := strings.CutPrefix(path, "../examples/")
		name, file, _ := strings.Cut(rest, "/")
		switch {
		case is && strings.HasSuffix(file, "_test.go"):
			tested[name] = tested[name] || strings.Contains(text, "\nfunc Test")
		case is && (name == "mtls" || name == "hsm" || name == "chat"):
			lines[name] = max(lines[name], strings.Count(text, "\n"))
		case is:
			lines[name] += strings.Count(text, "\n")
		case strings.HasSuffix(path, "_test.go"):
			tests += text
		}
	}
	assert.GreaterOrEqual(t, len(lines), 9)
	for name, count := range lines {
		assert.Contains(t, string(list), "| ["+name+"]("+name+") |")
		assert.LessOrEqual(t, count, 130, name)
		assert.True(t, tested[name] || strings.Contains(tests, `"./examples/`+name+`"`), "no test runs examples/%s", name)
	}
}

// What `make test` and `make check` go through, and with them CI, is what go.work uses. That is
// every module, and each that another one requires is its folder here. SPIRE's is none of them: it
// would choose the versions of all others.
func TestEveryModuleIsTested(t *testing.T) {
	work, err := os.ReadFile("../go.work")
	require.NoError(t, err)
	var folders []string
	for _, match := range regexp.MustCompile(`(?m)^\t(\.\S*)$`).FindAllStringSubmatch(string(work), -1) {
		folders = append(folders, match[1])
	}
	folders = append(folders, "./engine")
	for path, text := range files(t, ".mod", func(path string) bool { return filepath.Base(path) == "go.mod" }) {
		folder, err := filepath.Rel("..", filepath.Dir(path))
		require.NoError(t, err)
		folder = strings.TrimSuffix("./"+filepath.ToSlash(folder), "/.")
		if folder == "./certmanager/spiffe/e2e/tools" {
			continue
		}
		assert.Contains(t, folders, folder, "go.work does not use it")
		assert.NotContains(t, text, "replace", "%s: what a user gets replaces nothing: go.work does", path)
		for _, own := range regexp.MustCompile(`github\.com/ergotls/ergotls(/\S+)? v\S+`).FindAllStringSubmatch(text, -1) {
			assert.Contains(t, string(work), "\t"+own[0]+" => ."+own[1]+"\n", "%s: go.work does not say where that is", path)
		}
		folders = slices.DeleteFunc(folders, func(f string) bool { return f == folder })
	}
	assert.Empty(t, folders, "there is no go.mod")
}
