// Package structure holds the shape of the repository: who may import whom,
// what the Lambda binary links, and the rules of style that a machine can
// check. A rule that has to give way is changed here, with its reason in the
// commit.
package structure

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/thaw-project/thaw"

// root is the repository, seen from here.
var root = filepath.Join("..", "..")

// edges is every import of one of our packages by another of the product.
// Adapters import cache and not each other; only the main package of a program
// knows everything; configuration is a contract that clients of the outside
// may know.
func edges() map[string][]string {
	return map[string][]string{
		"extension": {
			"extension/app", "extension/clock", "extension/config", "extension/doctor", "extension/idle", "extension/lambda", "extension/process",
			"extension/rescue", "extension/status", "extension/tier",
			"functions/warmup/job", // thaw proxy warms by itself, but in the layer
		},
		"extension/answers": {"extension/clock", "extension/vault", "extension/wire"},
		"extension/app": {
			"extension/answers", "extension/auth", "extension/cache", "extension/clock", "extension/coalesce", "extension/config",
			"extension/consistency", "extension/cursor", "extension/events", "extension/files", "extension/journal", "extension/material", "extension/meter",
			"extension/origin", "extension/poll", "extension/proxy", "extension/rescue", "extension/status", "extension/tier", "extension/vault",
			"extension/wait",
		},
		"extension/auth":    {"extension/clock", "extension/coalesce", "extension/config", "extension/wait", "extension/wire"},
		"extension/azurefn": {"extension/clock"},
		"extension/azure":   {"extension/clock", "extension/coalesce", "extension/config", "extension/wait"},
		"extension/azurefn/thaw-azure": {
			"extension/app", "extension/auth", "extension/azure", "extension/azurefn", "extension/clock", "extension/config", "extension/doctor",
			"extension/idle", "extension/memcached/envelope", "extension/process", "extension/status", "extension/tier", "functions/warmup",
			"functions/warmup/bucket", "functions/warmup/job",
		},
		"extension/cache":    {"extension/clock", "extension/coalesce", "extension/queue", "extension/wire"},
		"extension/clock":    {},
		"extension/coalesce": {"extension/clock", "extension/rescue"},
		"extension/config":   {"extension/memcached/envelope"}, // what a key looks like
		"extension/doctor": {
			"extension/auth", "extension/cache", "extension/config", "extension/files", "extension/kms", "extension/memcached", "extension/memcached/envelope", "extension/tier",
			"extension/vault", "extension/wait", "extension/wire",
		},
		"extension/consistency": {"extension/cache", "extension/clock", "extension/config", "extension/wait", "extension/wire"},
		"extension/cursor":      {"extension/cache", "extension/clock", "extension/coalesce", "extension/rescue", "extension/vault", "extension/wire"},
		"extension/events":      {"extension/cache", "extension/clock", "extension/rescue", "extension/wait", "extension/wire"},
		"extension/files":       {"extension/cache", "extension/config", "extension/rescue"},
		"extension/idle":        {"extension/clock", "extension/rescue"},
		"extension/journal":     {"extension/clock", "extension/config", "extension/rescue"},
		"extension/kms":         {"extension/config"},
		"extension/lambda":      {"extension/clock", "extension/wait"},
		"extension/material":    {},
		"extension/memcached": {
			"extension/cache", "extension/clock", "extension/coalesce", "extension/config", "extension/material", "extension/memcached/envelope", "extension/rescue",
		},
		"extension/memcached/envelope": {},
		"extension/meter":              {},
		"extension/origin":             {"extension/auth", "extension/cache", "extension/clock", "extension/coalesce", "extension/queue", "extension/wait", "extension/wire"},
		"extension/poll": {
			"extension/cache", "extension/clock", "extension/config", "extension/cursor", "extension/queue", "extension/rescue", "extension/vault", "extension/wire",
		},
		"extension/process": {"extension/config", "extension/journal", "extension/rescue"},
		"extension/queue":   {},
		"extension/rescue":  {"extension/wait"},
		"extension/status":  {"extension/config", "extension/journal", "extension/memcached", "extension/vault"},
		"extension/proxy":   {"extension/cache", "extension/clock", "extension/config", "extension/material", "extension/poll", "extension/queue", "extension/rescue", "extension/wire"},
		"extension/tier": {
			"extension/auth", "extension/cache", "extension/clock", "extension/coalesce", "extension/config", "extension/kms",
			"extension/memcached", "extension/memcached/envelope", "extension/wait",
		},
		"extension/vault": {
			"extension/clock", "extension/coalesce", "extension/config", "extension/material", "extension/queue", "extension/rescue", "extension/wait", "extension/wire",
		},
		"extension/wait":           {},
		"extension/wire":           {},
		"functions/demo":           {},
		"functions/demo/lambda":    {"functions/demo"},
		"functions/warmup":         {"extension/auth", "extension/cache", "extension/clock", "extension/coalesce", "extension/cursor", "extension/origin", "extension/rescue", "extension/vault", "extension/wait", "extension/wire", "functions/warmup/backoff"},
		"functions/warmup/backoff": {"extension/vault", "extension/wait", "extension/wire"},
		"functions/warmup/bucket":  {"extension/config", "functions/warmup"},
		"functions/warmup/job": {
			"extension/auth", "extension/cache", "extension/config", "extension/memcached", "extension/memcached/envelope",
			"extension/meter", "extension/origin", "extension/rescue", "extension/tier", "extension/vault", "extension/wait", "functions/warmup", "functions/warmup/backoff",
		},
		"functions/warmup/lambda": {"extension/config", "extension/process", "functions/warmup", "functions/warmup/bucket", "functions/warmup/job"},
		"layer":                   {},
		"layer/release":           {},
	}
}

// linked is every module that the Lambda binary may link code of.
func linked() []string {
	return []string{
		module,
		"github.com/aws/aws-sdk-go-v2", // the signer; see unlinked
		"github.com/aws/smithy-go",     // what the signer needs
		"github.com/bradfitz/gomemcache",
		"github.com/hashicorp/hcl", // version 1, the parser alone
		"golang.org/x/net",
		"golang.org/x/text",
		"golang.org/x/time",
	}
}

// unlinked are packages, with all below them, that the Lambda binary must
// never link: they cost size or start, or belong to another platform.
func unlinked() []string {
	return []string{
		"github.com/hashicorp/vault", "github.com/openbao", "github.com/Azure",
		"github.com/aws/aws-sdk-go-v2/service", "github.com/aws/aws-sdk-go-v2/config",
		"github.com/aws/aws-sdk-go-v2/credentials", "github.com/aws/aws-sdk-go-v2/feature",
		"github.com/aws/aws-lambda-go", "text/template", "html/template", "testing", "plugin", "net/http/pprof",
		module + "/tests", module + "/functions/demo",
		module + "/functions/warmup", // thaw proxy runs it, in the binary without the tag layer
	}
}

func TestImportsPointOneWay(t *testing.T) {
	t.Parallel()
	allowed := edges()
	seen := map[string]bool{}
	for _, p := range list(t, "./extension/...", "./functions/...", "./layer/...") {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		seen[name] = true
		want, ok := allowed[name]
		if !ok {
			t.Errorf("%s is new: write down here what it may import, and then: go test ./tests/structure -run TestArchitecture -update", name)
			continue
		}
		var got []string
		for _, i := range p.Imports {
			if ours, ok := strings.CutPrefix(i, module+"/"); ok {
				got = append(got, ours)
			}
		}
		slices.Sort(got)
		for _, g := range got {
			if !slices.Contains(want, g) {
				t.Errorf("%s imports %s, which it may not", name, g)
			}
		}
		for _, w := range want {
			if !slices.Contains(got, w) {
				t.Errorf("%s may import %s and does not: remove the edge", name, w)
			}
		}
	}
	for name := range maps.Keys(allowed) {
		if !seen[name] {
			t.Errorf("%s is gone: remove it here", name)
		}
	}
}

func TestTheLambdaBinaryLinksOnlyWhatItNeeds(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, "-deps", "-tags", "layer", "./extension") {
		if p.Module != nil && !slices.Contains(linked(), p.Module.Path) {
			t.Errorf("the binary links %s of module %s: name the module here, if it is worth its size", p.ImportPath, p.Module.Path)
		}
		for _, no := range unlinked() {
			if p.ImportPath == no || strings.HasPrefix(p.ImportPath, no+"/") {
				t.Errorf("the binary links %s", p.ImportPath)
			}
		}
	}
}

// pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath string
	Doc        string
	Imports    []string
	Module     *struct{ Path string }
}

// list runs go list.
func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=Doc,ImportPath,Imports,Module"}, args...)...)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		all = append(all, p)
	}
}
