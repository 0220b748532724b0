package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var verb = regexp.MustCompile(`%[-+# 0-9.]*[a-zA-Z]`)

// sentences gives the literals that become the texts of errors, and of warnings in the log, in the
// files of a pattern.
func sentences(t *testing.T, pattern string) (all []string) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	require.NoError(t, err)
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			selector, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			arg := 0
			switch selector.Sel.Name {
			case "refuse":
				arg = 1
			case "New":
				if base, ok := selector.X.(*ast.Ident); !ok || base.Name != "errors" {
					return true
				}
			case "Errorf", "Warning", "Warn", "Error":
			default:
				return true
			}
			if len(call.Args) <= arg {
				return true // the Error of an error
			}
			if literal, ok := call.Args[arg].(*ast.BasicLit); ok && literal.Kind == token.STRING {
				text, err := strconv.Unquote(literal.Value)
				require.NoError(t, err)
				all = append(all, text)
			}
			return true
		})
	}
	require.NotEmpty(t, all, pattern)
	return all
}

// cores are the parts of a sentence that are the same each time, and long enough to be searched
// for.
func cores(sentence string) (all []string) {
	for _, part := range verb.Split(sentence, -1) {
		if part = strings.Trim(part, " :;,()"); len(part) >= 8 {
			all = append(all, part)
		}
	}
	return all
}

var kind = regexp.MustCompile(`\bKind += "([a-z-]+)"`)

// Every event of a manager, which is a word of its log lines, is explained.
func TestEveryEventIsExplained(t *testing.T) {
	text, err := os.ReadFile("../certmanager/events.go")
	require.NoError(t, err)
	kinds := kind.FindAllStringSubmatch(string(text), -1)
	require.Greater(t, len(kinds), 10)
	for _, k := range kinds {
		assert.Contains(t, pages(t)["watching.md"], "| `"+k[1]+"` |")
	}
}

// The operator who searches the page for the words of an error finds them: sentinels, and what is
// said around them.
func TestEveryErrorIsExplained(t *testing.T) {
	page := words(pages(t)["troubleshooting.md"])
	for _, file := range []string{"../meta/errors.go", "../certmanager/errors.go"} {
		for _, text := range sentences(t, file) {
			if !strings.Contains(text, "%") {
				assert.True(t, strings.Contains(page, "`"+text+"`"), "%s: the sentinel %q is not in troubleshooting.md", file, text)
			}
		}
	}
	for _, folder := range []string{
		"../meta", "../certmanager", "../certmanager/acme", "../certmanager/acme/rfc2136", "../certmanager/crlfetch", "../certmanager/spiffe", "../certmanager/rediscache", "../internal/sni", "../status", "../tlstest", "../tlstest/acmetest",
	} {
		for _, text := range sentences(t, folder+"/*.go") {
			for _, part := range cores(text) {
				assert.True(t, strings.Contains(page, words(part)), "%s: an error says %q: explain it in troubleshooting.md", folder, part)
			}
		}
	}
}
