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
	"regexp"
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
	err = filepath.WalkDir(source+string(filepath.Separator), func(name string, d fs.DirEntry, err error) error {
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

// example is what a file may have.
const example = `{"secret/data/app": {"password": "one"}}`

// noSecrets is the error of a source that has none.
func noSecrets(source string) error {
	if info, err := os.Stat(source); err == nil && info.IsDir() {
		return fmt.Errorf(`%s has no secrets; write one, such as secret/data/app.json with {"password": "one"}`, source)
	}
	return fmt.Errorf("%s has no secrets; write one such as %s", source, example)
}

// decode reads an object of JSON or YAML. Its errors tell where, not what.
func decode(name string, body []byte) (map[string]json.RawMessage, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, fmt.Errorf("%s is empty; write an object such as %s", name, example)
	}
	if ext := filepath.Ext(name); ext == ".yaml" || ext == ".yml" {
		return decodeYAML(name, body)
	}
	if err := json.Unmarshal(body, new(json.RawMessage)); err != nil {
		hint := ""
		if filepath.Ext(name) != ".json" {
			hint = "; a file with YAML ends in .yaml or .yml"
		}
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			body = body[:min(int(syntax.Offset), len(body))]
		}
		return nil, fmt.Errorf("%s: line %d is no JSON%s", name, 1+bytes.Count(body, []byte("\n")), hint)
	}
	object := map[string]json.RawMessage{}
	d := json.NewDecoder(bytes.NewReader(body))
	if t, _ := d.Token(); t != json.Delim('{') {
		return nil, fmt.Errorf("%s: want an object such as %s", name, example)
	}
	for d.More() {
		var value json.RawMessage
		key, err := d.Token()
		if err == nil {
			err = d.Decode(&value)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err) // not after the check above
		}
		if _, twice := object[fmt.Sprint(key)]; twice {
			return nil, fmt.Errorf("%s: %s is there twice; a secret has one value at a time", name, key)
		}
		object[fmt.Sprint(key)] = value
	}
	return object, nil
}

// where is what an error of YAML says of the place. The rest may have values.
var where = regexp.MustCompile(`line (\d+): (mapping key .* already defined)?`)

// decodeYAML reads an object of YAML.
func decodeYAML(name string, body []byte) (map[string]json.RawMessage, error) {
	var values map[string]any
	err := yaml.Unmarshal(body, &values)
	at := where.FindStringSubmatch(fmt.Sprint(err))
	switch wrong := new(yaml.TypeError); {
	case at != nil && at[2] != "":
		return nil, fmt.Errorf("%s: line %s has a name that is there already", name, at[1])
	case err == nil && values == nil, errors.As(err, &wrong):
		return nil, fmt.Errorf("%s: want an object such as %s, or the same as YAML", name, example)
	case at != nil:
		return nil, fmt.Errorf("%s: line %s is no YAML", name, at[1])
	case err != nil:
		return nil, fmt.Errorf("%s is no YAML", name)
	}
	object := map[string]json.RawMessage{}
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
		case at == "v1" || strings.HasPrefix(at, "v1/"):
			problems = append(problems, fmt.Errorf("%s: %q: leave out v1/, as in secret/data/app", source, path))
		case version == 1 && (name == "data" || strings.HasPrefix(name, "metadata/")),
			at == "" || name == "" || strings.Contains(path, "//") || strings.ContainsAny(path, "?#%"):
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
