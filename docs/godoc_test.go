package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// constructor is the name of a function that makes something: it has an example.
var constructor = regexp.MustCompile(`^(New|Create|Generate|Start)([A-Z]|$)`)

// library gives the parsed files of each package that a program may import, by folder. The engine
// is Ergo's and documented there.
func library(t *testing.T) (fset *token.FileSet, packages map[string][]*ast.File) {
	t.Helper()
	fset, packages = token.NewFileSet(), map[string][]*ast.File{}
	for name, text := range goFiles(t, func(name string) bool {
		return !regexp.MustCompile(`^../(engine|internal|docs)/|/(testdata|e2e|internal)/`).MatchString(filepath.ToSlash(name))
	}) {
		file, err := parser.ParseFile(fset, name, text, parser.ParseComments)
		require.NoError(t, err)
		if file.Name.Name != "main" {
			folder := path.Dir(filepath.ToSlash(name))
			packages[folder] = append(packages[folder], file)
		}
	}
	require.Contains(t, packages, "../meta")
	return fset, packages
}

func isTest(fset *token.FileSet, file *ast.File) bool {
	return strings.HasSuffix(fset.Position(file.Pos()).Filename, "_test.go")
}

// No exported name is without a comment: types, their fields and methods, functions, constants,
// variables, and the package.
func TestEverythingIsDocumented(t *testing.T) {
	fset, packages := library(t)
	missing := func(at token.Pos, name string) {
		assert.Fail(t, name+" has no comment", "%s: say what it does, its unit, its default, its errors", fset.Position(at))
	}
	for folder, files := range packages {
		described := false
		for _, file := range files {
			if isTest(fset, file) {
				continue
			}
			described = described || file.Doc != nil
			for _, declaration := range file.Decls {
				switch d := declaration.(type) {
				case *ast.FuncDecl:
					if name, exported := nameOf(d); exported && d.Doc == nil {
						missing(d.Pos(), name)
					}
				case *ast.GenDecl:
					for _, spec := range d.Specs {
						checkSpec(fset, d, spec, missing)
					}
				}
			}
		}
		onlyTests := true
		for _, file := range files {
			onlyTests = onlyTests && isTest(fset, file)
		}
		assert.True(t, described || onlyTests, "%s has no package comment", folder)
	}
}

var (
	firstStep = regexp.MustCompile(`(Start with|Call) \[\w+\]|:= \w+\.Start\(`)
	notThis   = regexp.MustCompile(`\b(not|no|nothing|nowhere)\b`)
)

// The overview of a package says what to call first, and what it does not do.
func TestOverviews(t *testing.T) {
	fset, packages := library(t)
	count := 0
	for folder, files := range packages {
		overview, exports := "", false
		for _, file := range files {
			if !isTest(fset, file) {
				overview += file.Doc.Text()
				exports = exports || ast.FileExports(file)
			}
		}
		if exports {
			count++
			assert.Regexp(t, firstStep, overview, folder)
			assert.Regexp(t, notThis, overview, folder)
		}
	}
	assert.GreaterOrEqual(t, count, 7)
}

// nameOf gives the name of a function or method as examples have it, and whether other packages can
// call it.
func nameOf(d *ast.FuncDecl) (name string, exported bool) {
	if d.Recv == nil {
		return d.Name.Name, d.Name.IsExported()
	}
	receiver := d.Recv.List[0].Type
	if star, ok := receiver.(*ast.StarExpr); ok {
		receiver = star.X
	}
	base, ok := receiver.(*ast.Ident)
	if !ok {
		return d.Name.Name, false
	}
	return base.Name + "_" + d.Name.Name, base.IsExported() && d.Name.IsExported()
}

// checkSpec looks at a type, a constant or a variable. A comment of a group is one of each member.
// A field, or a method of an interface, may be explained by name in the comment of the type, or in
// the one above its neighbours up to an empty line.
func checkSpec(fset *token.FileSet, group *ast.GenDecl, spec ast.Spec, missing func(token.Pos, string)) {
	switch s := spec.(type) {
	case *ast.ValueSpec:
		for _, name := range s.Names {
			if name.IsExported() && group.Doc == nil && s.Doc == nil && s.Comment == nil {
				missing(name.Pos(), name.Name)
			}
		}
	case *ast.TypeSpec:
		if !s.Name.IsExported() {
			return
		}
		if group.Doc == nil && s.Doc == nil {
			missing(s.Pos(), s.Name.Name)
		}
		var members *ast.FieldList
		switch t := s.Type.(type) {
		case *ast.StructType:
			members = t.Fields
		case *ast.InterfaceType:
			members = t.Methods
		default:
			return
		}
		about, last := group.Doc.Text()+s.Doc.Text(), 0
		above := ""
		for _, member := range members.List {
			if member.Doc != nil || fset.Position(member.Pos()).Line != last+1 {
				above = member.Doc.Text()
			}
			last = fset.Position(member.End()).Line
			for _, name := range member.Names {
				if name.IsExported() && member.Doc == nil && member.Comment == nil && !tells(above+about, name.Name) {
					missing(name.Pos(), s.Name.Name+"."+name.Name)
				}
			}
		}
	}
}

// asIn sends the reader to another type.
var asIn = regexp.MustCompile(`(^|\W)[Aa]s in [A-Z]\w+\W`)

// tells says whether a comment is about a name that has none of its own: it names it, or says where
// that is explained.
func tells(comment, name string) bool {
	return asIn.MatchString(comment) || regexp.MustCompile(`\b`+name+`\b`).MatchString(comment)
}

// Who wants to make something finds an example of it.
func TestEveryConstructorHasAnExample(t *testing.T) {
	fset, packages := library(t)
	count := 0
	for folder, files := range packages {
		examples := map[string]bool{}
		var constructors []string
		for _, file := range files {
			for _, declaration := range file.Decls {
				d, ok := declaration.(*ast.FuncDecl)
				if !ok {
					continue
				}
				name, exported := nameOf(d)
				if after, is := strings.CutPrefix(d.Name.Name, "Example"); is && isTest(fset, file) {
					examples[after] = true
				} else if exported && !isTest(fset, file) && constructor.MatchString(d.Name.Name) {
					constructors = append(constructors, name)
				}
			}
		}
		for _, name := range constructors {
			count++
			has := examples[name]
			for example := range examples {
				has = has || strings.HasPrefix(example, name+"_")
			}
			assert.True(t, has, "%s: there is no func Example%s", folder, name)
		}
	}
	assert.Greater(t, count, 10)
}
