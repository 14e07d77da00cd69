package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// sums is go.sum: "module version" to the hash of the module's content
// (https://go.dev/ref/mod#go-sum-files).
type sums map[string]string

func readSums(name string) (sums, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read the checksums of modules: %w", err)
	}
	out := make(sums)
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return nil, fmt.Errorf("%s: %q is not a line of a go.sum", name, strings.TrimSpace(line))
		}
		out[fields[0]+" "+fields[1]] = fields[2]
	}
	return out, nil
}

// The part of CycloneDX 1.5 that is written
// (https://cyclonedx.org/docs/1.5/json/).
type document struct {
	Schema       string       `json:"$schema"`
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	SerialNumber string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Ref        string     `json:"bom-ref"`
	Type       string     `json:"type"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	Scope      string     `json:"scope,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Licenses   []license  `json:"licenses,omitempty"`
	PURL       string     `json:"purl"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type license struct {
	License struct {
		ID string `json:"id"`
	} `json:"license"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

// bill lists the modules that are linked into a binary, and says for which
// architecture it is. There is no time in it and its number is made of the
// binary, so one binary has one list. A module whose hash is not the one of
// go.sum is an error.
func bill(binary []byte, name, version string, known sums) (arch string, list []byte, err error) {
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		return "", nil, err
	}
	root := component{
		Ref: "thaw", Type: "application", Name: name, Version: version, PURL: purl(info.Main.Path, version),
		Hashes: []hash{{"SHA-256", hex.EncodeToString(digest(binary))}},
	}
	root.Licenses = make([]license, 1)
	root.Licenses[0].License.ID = "Apache-2.0"
	for _, s := range info.Settings {
		switch s.Key {
		case "GOARCH":
			arch = s.Value
			fallthrough
		case "GOOS", "CGO_ENABLED", "-trimpath":
			root.Properties = append(root.Properties, property{"go:" + strings.TrimPrefix(s.Key, "-"), s.Value})
		}
	}
	std := strings.TrimPrefix(info.GoVersion, "go")
	parts := []component{{Ref: purl("std", std), Type: "library", Name: "std", Version: std, Scope: "required", PURL: purl("std", std)}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		if known != nil && known[m.Path+" "+m.Version] != m.Sum {
			return "", nil, fmt.Errorf("%s %s was linked with the content %s, which go.sum does not have", m.Path, m.Version, m.Sum)
		}
		h, err := contentHash(m.Sum)
		if err != nil {
			return "", nil, fmt.Errorf("%s %s: %w", m.Path, m.Version, err)
		}
		parts = append(parts, component{
			Ref: purl(m.Path, m.Version), Type: "library", Name: m.Path, Version: m.Version, Scope: "required",
			Hashes: []hash{{"SHA-256", h}}, PURL: purl(m.Path, m.Version),
		})
	}
	all := dependency{Ref: root.Ref}
	graph := []dependency{}
	for i := range parts {
		all.DependsOn = append(all.DependsOn, parts[i].Ref)
		graph = append(graph, dependency{Ref: parts[i].Ref})
	}
	list, err = json.MarshalIndent(document{
		Schema: "http://cyclonedx.org/schema/bom-1.5.schema.json", Format: "CycloneDX", SpecVersion: "1.5",
		SerialNumber: number(binary), Version: 1, Metadata: metadata{root},
		Components: parts, Dependencies: append([]dependency{all}, graph...),
	}, "", "  ")
	return arch, append(list, '\n'), err
}

// purl names a module for the world
// (https://github.com/package-url/purl-spec, type golang).
func purl(module, version string) string {
	return "pkg:golang/" + module + "@" + strings.ReplaceAll(version, "+", "%2B")
}

// contentHash turns Go's hash of a module's content ("h1:" and a SHA-256 in
// base64) into hexadecimal.
func contentHash(sum string) (string, error) {
	b64, ok := strings.CutPrefix(sum, "h1:")
	raw, err := base64.StdEncoding.DecodeString(b64)
	if !ok || err != nil || len(raw) != sha256.Size {
		return "", errors.New("the binary does not say the hash of its content")
	}
	return hex.EncodeToString(raw), nil
}

func digest(b []byte) []byte {
	d := sha256.Sum256(b)
	return d[:]
}

// number is a UUID (RFC 9562, version 8) made of the binary.
func number(binary []byte) string {
	d := digest(append([]byte("thaw's list of modules of "), digest(binary)...))[:16]
	d[6] = d[6]&0x0f | 0x80
	d[8] = d[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", d[:4], d[4:6], d[6:8], d[8:10], d[10:])
}
