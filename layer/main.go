// Command layer packs a binary for AWS Lambda: the extension into a layer, a
// zip file with the binary at extensions/thaw, which Lambda unpacks to
// /opt/extensions and starts
// (https://docs.aws.amazon.com/lambda/latest/dg/packaging-layers.html), or,
// with -entry bootstrap, a function of the runtime provided.al2023.
//
// Beside each zip it writes its checksum and what is in it: a list of modules
// in CycloneDX's format, which cyclonedx-gomod makes from what the Go linker
// wrote into the binary.
//
// The same binary always gives the same bytes: one entry, a fixed time, a
// fixed mode. So a layer can be built again and compared by its checksum.
package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

const usage = `usage: layer [-entry NAME] [-version V] [-sbom go.mod] ZIP BINARY [ZIP BINARY]...

Packs each binary into the zip before it, and writes the zip's checksum
(ZIP.sha256) beside it, and the list of its modules (.cdx.json) with the
cyclonedx-gomod that a go.mod pins.
`

// order is what the command line asks for.
type order struct {
	entry   string // where the binary goes in the zip
	version string // of the product
	tools   string // the go.mod that pins cyclonedx-gomod; empty: no list is written
}

// run packs each binary into the zip named before it.
func run(args []string, stdout, stderr io.Writer) int {
	var o order
	flags := flag.NewFlagSet("layer", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage) }
	flags.StringVar(&o.entry, "entry", "extensions/thaw", "")
	flags.StringVar(&o.version, "version", "dev", "")
	flags.StringVar(&o.tools, "sbom", "", "")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	pairs := flags.Args()
	if len(pairs) == 0 || len(pairs)%2 != 0 {
		flags.Usage()
		return 2
	}
	for i := 0; i < len(pairs); i += 2 {
		if err := packFile(pairs[i], pairs[i+1], &o, stdout); err != nil {
			fmt.Fprintln(stderr, "layer:", err)
			return 1
		}
	}
	return 0
}

func packFile(zipName, binary string, o *order, stdout io.Writer) error {
	b, err := os.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("read the binary: %w", err)
	}
	info, err := buildinfo.Read(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("list what is in %s: %w", binary, err)
	}
	f, err := os.Create(zipName)
	if err != nil {
		return fmt.Errorf("create the zip: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	if err := pack(io.MultiWriter(f, sum), o.entry, b); err != nil {
		return fmt.Errorf("write %s: %w", zipName, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write %s: %w", zipName, err)
	}
	line := fmt.Sprintf("%x  %s\n", sum.Sum(nil), filepath.Base(zipName))
	if err := os.WriteFile(zipName+".sha256", []byte(line), 0o644); err != nil {
		return fmt.Errorf("write the checksum: %w", err)
	}
	if o.tools != "" {
		if err := writeList(strings.TrimSuffix(zipName, ".zip")+".cdx.json", o.tools, o.version, binary); err != nil {
			return fmt.Errorf("list what is in %s: %w", binary, err)
		}
	}
	st, err := os.Stat(zipName)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s  %.2f MB, binary %.2f MB\n", zipName, float64(st.Size())/1e6, float64(len(b))/1e6)
	if isExtension(o.entry) {
		fmt.Fprint(stdout, publish(zipName, archOf(info)))
	}
	return nil
}

// archOf is the GOARCH that a binary was built for.
func archOf(info *debug.BuildInfo) string {
	for _, s := range info.Settings {
		if s.Key == "GOARCH" {
			return s.Value
		}
	}
	return ""
}

// publish is the command that makes a layer version of a zip
// (https://docs.aws.amazon.com/cli/latest/reference/lambda/publish-layer-version.html).
func publish(zipName, goarch string) string {
	lambdaArch := cmp.Or(map[string]string{"amd64": "x86_64"}[goarch], goarch)
	return fmt.Sprintf(`    aws lambda publish-layer-version --layer-name thaw-%s \
        --zip-file fileb://%s --license-info Apache-2.0 \
        --compatible-architectures %s --query LayerVersionArn --output text
`, goarch, filepath.ToSlash(zipName), lambdaArch)
}
