// Package lambda runs the layer under AWS's own Runtime Interface Emulator: the
// zip as it ships, unpacked to /opt, with a small function that reads through
// it. The emulator starts the extension, sends the events, kills what has timed
// out. What it does not do, the tests do: it never freezes a process.
//
// Each emulator lives in namespaces of its own (see room), which takes root. Where
// they cannot be had, the tests skip and say so.
//
// The same binary plays the function, a second extension, and a probe that
// compares the emulator with our own stand-in (tests/fakes/lambdaapi).
package lambda

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// errNoRoom says that this machine allows no namespaces.
var errNoRoom = errors.New("no mount and network namespaces (they take root)")

// Names under which the test binary plays a part.
const (
	functionName = "bootstrap"
	peerName     = "peer"
	probeName    = "probe"
)

func TestMain(m *testing.M) {
	api := os.Getenv("AWS_LAMBDA_RUNTIME_API")
	switch name := filepath.Base(os.Args[0]); name {
	case functionName:
		os.Exit(serve(api))
	case peerName:
		os.Exit(accompany(api))
	case probeName:
		os.Exit(probe(api, os.Stdout))
	}
	os.Exit(harness.Main(m, func(dir string) error { built.dir = dir; return nil }))
}

// built is what the tests run, made for the first that asks.
var built struct {
	dir  string // TestMain's, removed at the end
	once sync.Once
	opt  string // to be mounted at /opt; set by once
	err  error  // set by once
}

// opt returns a folder for /opt: the emulator, the function, and the extensions
// of those names. "thaw" is the layer's; the others are played by this binary.
func opt(t *testing.T, extensions ...string) string {
	t.Helper()
	bin := harness.Emulator(t)
	built.once.Do(func() { built.opt, built.err = pack(t.Context(), bin) })
	harness.Must(t, built.err)
	dir, err := os.MkdirTemp(built.dir, "opt-")
	harness.Must(t, err, os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "extensions"), 0o755))
	link := func(from, to string) {
		harness.Must(t, os.Link(filepath.Join(built.opt, from), filepath.Join(dir, to)))
	}
	link("aws-lambda-rie", "aws-lambda-rie")
	link(functionName, functionName)
	for _, name := range extensions {
		if name == "thaw" {
			link("extensions/thaw", "extensions/thaw")
			continue
		}
		link(functionName, "extensions/"+name)
	}
	return dir
}

// pack builds the layer as `make layer` does, and unpacks it.
func pack(ctx context.Context, emulator string) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	binary, zipped, opt := filepath.Join(built.dir, "thaw"), filepath.Join(built.dir, "layer.zip"), filepath.Join(built.dir, "opt")
	if err := harness.Build(ctx, binary, "./extension", "layer"); err != nil {
		return "", err
	}
	packer := filepath.Join(built.dir, "layer")
	if err := harness.Build(ctx, packer, "./layer"); err != nil {
		return "", err
	}
	if _, err := harness.Run(ctx, harness.Command{Path: packer, Args: []string{"-version", "v0.0.1-test", zipped, binary}}); err != nil {
		return "", err
	}
	if err := unzip(zipped, opt); err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	for name, from := range map[string]string{functionName: self, "aws-lambda-rie": emulator} {
		if err := copyFile(filepath.Join(opt, name), from); err != nil {
			return "", fmt.Errorf("copy %s: %w", name, err)
		}
	}
	return opt, nil
}
