package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// secrets are what a file or folder has: the path of Vault's API to the JSON of
// the secret.
type secrets map[string]json.RawMessage

// mount is where a path's secrets engine is, its KV version, and the secret's
// name inside it. With data as its second segment or a later one a path is of
// version 2, with all before it as the mount; any other path is of version 1,
// with its first segment as the mount.
func mount(path string) (at string, version int, name string) {
	if at, name, ok := strings.Cut(path, "/data/"); ok {
		return at, 2, name
	}
	at, name, _ = strings.Cut(path, "/")
	return at, 1, name
}

// readSecrets reads a file, or all files of a folder. The error names each
// problem, and never a value.
func readSecrets(source string) (secrets, error) {
	info, err := os.Stat(source)
	if err != nil {
		return nil, err
	}
	all := secrets{}
	if !info.IsDir() {
		body, err := os.ReadFile(source)
		if err != nil {
			return nil, err
		}
		values, err := decode(source, body)
		if err != nil {
			return nil, err
		}
		for path, v := range values {
			all[strings.Trim(path, "/")] = v
		}
		return all, all.check(source)
	}
	var problems []error
	err = filepath.WalkDir(source, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if strings.HasPrefix(d.Name(), ".") || !slices.Contains([]string{".json", ".yaml", ".yml"}, filepath.Ext(name)) {
			return nil // an editor's, or none of ours
		}
		body, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(source, name)
		if err != nil {
			return err
		}
		value, err := decode(name, body)
		if err != nil {
			problems = append(problems, err)
			return nil
		}
		path := filepath.ToSlash(strings.TrimSuffix(rel, filepath.Ext(rel)))
		if _, twice := all[path]; twice {
			problems = append(problems, fmt.Errorf("%s: there are two files for %s", source, path))
		}
		all[path], err = json.Marshal(value)
		return err
	})
	return all, errors.Join(append(problems, err, all.check(source))...)
}

// decode reads an object of JSON or YAML. Its errors tell where, not what.
func decode(name string, body []byte) (map[string]json.RawMessage, error) {
	var object map[string]json.RawMessage
	if filepath.Ext(name) != ".yaml" && filepath.Ext(name) != ".yml" {
		err := json.Unmarshal(body, &object)
		if syntax := new(json.SyntaxError); errors.As(err, &syntax) {
			return nil, fmt.Errorf("%s: line %d is no JSON", name, 1+bytes.Count(body[:min(int(syntax.Offset), len(body))], []byte("\n")))
		}
		if err != nil || object == nil {
			return nil, fmt.Errorf("%s: want a JSON object", name)
		}
		return object, nil
	}
	var values map[string]any
	if err := yaml.Unmarshal(body, &values); err != nil || values == nil {
		return nil, fmt.Errorf("%s: want a YAML mapping with names as its keys", name)
	}
	object = map[string]json.RawMessage{}
	for k, v := range values {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("%s: %s has keys that are no text", name, k)
		}
		object[k] = b
	}
	return object, nil
}

// check names all paths that cannot be served.
func (s secrets) check(source string) error {
	var problems []error
	versions := map[string]int{}
	for _, path := range slices.Sorted(maps.Keys(s)) {
		at, version, name := mount(path)
		var object map[string]json.RawMessage
		switch {
		case at == "" || name == "" || strings.Contains(path, "//") || strings.ContainsAny(path, "?#%"):
			problems = append(problems, fmt.Errorf("%s: %q is no path such as secret/data/app or kv/app", source, path))
		case json.Unmarshal(s[path], &object) != nil || object == nil:
			problems = append(problems, fmt.Errorf("%s: the secret %s is no object with names and values", source, path))
		case versions[at] != 0 && versions[at] != version:
			problems = append(problems, fmt.Errorf("%s: %s has paths with /data/ (KV version 2) and without (version 1)", source, at))
		default:
			versions[at] = version
		}
	}
	return errors.Join(problems...)
}
