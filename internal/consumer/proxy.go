package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

// published is a module of the tree and the folder that it is packed from.
type published struct {
	module.Version
	folder string
}

// readWork returns the modules of go.work that are released, and engine/ twice: under Ergo's name
// with the version that the root requires, and under its own.
func readWork(repository string) ([]published, error) {
	data, err := os.ReadFile(filepath.Join(repository, "go.work"))
	if err != nil {
		return nil, err
	}
	work, err := modfile.ParseWork("go.work", data, nil)
	if err != nil {
		return nil, err
	}
	var all []published
	for _, use := range work.Use {
		m := published{folder: filepath.Join(repository, use.Path)}
		data, err := os.ReadFile(filepath.Join(m.folder, "go.mod"))
		if err != nil {
			return nil, err
		}
		m.Path, m.Version.Version = modfile.ModulePath(data), release
		if strings.HasPrefix(m.Path, root+"/internal/") {
			continue
		}
		if m.Path != root {
			all = append(all, m)
			continue
		}
		file, err := modfile.ParseLax("go.mod", data, nil)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
		for _, r := range file.Require {
			if r.Mod.Path == ergo {
				all = append(all, published{r.Mod, filepath.Join(repository, "engine")})
			}
		}
	}
	return append(all, published{module.Version{Path: engine, Version: release}, filepath.Join(repository, "engine")}), nil
}

// publish writes a module as the go command reads it from a file:// proxy.
// https://go.dev/ref/mod#goproxy-protocol
func (p published) publish(proxy string) error {
	path, err := module.EscapePath(p.Path)
	if err != nil {
		return err
	}
	base := filepath.Join(proxy, filepath.FromSlash(path), "@v")
	if err := os.MkdirAll(base, 0o755); err != nil {
		return err
	}
	info, err := json.Marshal(map[string]any{"Version": p.Version.Version, "Time": time.Now().UTC()})
	if err != nil {
		return err
	}
	mod, err := os.ReadFile(filepath.Join(p.folder, "go.mod"))
	if err != nil {
		return err
	}
	version := filepath.Join(base, p.Version.Version)
	for name, content := range map[string][]byte{
		version + ".info": info, version + ".mod": mod, filepath.Join(base, "list"): []byte(p.Version.Version + "\n"),
	} {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			return err
		}
	}
	file, err := os.Create(version + ".zip")
	if err != nil {
		return err
	}
	defer file.Close()
	if err := zip.CreateFromDir(file, p.Version, p.folder); err != nil {
		return err
	}
	return file.Close()
}
