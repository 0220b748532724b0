package ergo_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// unnamed is exported although the contract does not name it.
var unnamed = map[string]bool{
	// gen.ProcessBehavior: the contract embeds act.Actor instead.
	"ProcessInit": true, "ProcessRun": true, "ProcessTerminate": true,
	"NetworkMode": true, // the type of gen.NetworkModeDisabled
	"Meta":        true, // of gen.MessageLogMeta, which the contract leaves empty
	"Next":        true, // what act asks of a process, in an interface of its own
}

// The engine has nothing that the contract does not name.
func TestNothingBeyondTheContract(t *testing.T) {
	files := token.NewFileSet()
	contract, err := parser.ParseFile(files, "contract/contract_test.go", nil, 0)
	require.NoError(t, err)
	named := map[string]bool{}
	ast.Inspect(contract, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			named[id.Name] = true
		}
		return true
	})
	seen := 0
	for _, folder := range []string{".", "gen", "act"} {
		paths, err := filepath.Glob(filepath.Join(folder, "*.go"))
		require.NoError(t, err)
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(files, path, nil, 0)
			require.NoError(t, err)
			for _, id := range declared(file) {
				if id.IsExported() {
					seen++
					assert.True(t, named[id.Name] || unnamed[id.Name], "%s: %s", files.Position(id.Pos()), id.Name)
				}
			}
		}
	}
	assert.Greater(t, seen, 300, "it looks at everything")
}

// declared gives the names of types, values, functions, methods and fields.
func declared(file *ast.File) (ids []*ast.Ident) {
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			ids = append(ids, n.Name)
			return false
		case *ast.TypeSpec:
			ids = append(ids, n.Name)
		case *ast.ValueSpec:
			ids = append(ids, n.Names...)
		case *ast.Field:
			ids = append(ids, n.Names...)
		}
		return true
	})
	return ids
}
