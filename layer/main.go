// Command layer packs a binary for AWS Lambda: the extension into a layer, a
// zip file with the binary at extensions/thaw, which Lambda unpacks to
// /opt/extensions and starts
// (https://docs.aws.amazon.com/lambda/latest/dg/packaging-layers.html), or,
// with -entry bootstrap, a function of the runtime provided.al2023.
//
// Beside each zip it writes its checksum and what is in it: a list of modules
// in CycloneDX's format, made from what the Go linker wrote into the binary.
//
// The same binary always gives the same bytes: one entry, a fixed time, a
// fixed mode. So a layer can be built again and compared by its checksum.
package main

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

const usage = `usage: layer [-entry NAME] [-version V] [-sum go.sum] ZIP BINARY [ZIP BINARY]...

Packs each binary into the zip before it, and writes the zip's checksum
(ZIP.sha256) and the list of its modules (.cdx.json) beside it.
`

// order is what the command line asks for.
type order struct {
	entry   string // where the binary goes in the zip
	version string // of the product
	sums    sums   // of go.sum; nil: not compared
}

// run packs each binary into the zip named before it.
func run(args []string, stdout, stderr io.Writer) int {
	var o order
	var sumFile string
	flags := flag.NewFlagSet("layer", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage) }
	flags.StringVar(&o.entry, "entry", "extensions/thaw", "")
	flags.StringVar(&o.version, "version", "dev", "")
	flags.StringVar(&sumFile, "sum", "", "")
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
	if sumFile != "" {
		var err error
		if o.sums, err = readSums(sumFile); err != nil {
			fmt.Fprintln(stderr, "layer:", err)
			return 1
		}
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
	arch, list, err := bill(b, strings.TrimSuffix(filepath.Base(zipName), ".zip"), o.version, o.sums)
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
	if err := os.WriteFile(strings.TrimSuffix(zipName, ".zip")+".cdx.json", list, 0o644); err != nil {
		return fmt.Errorf("write the list of modules: %w", err)
	}
	st, err := os.Stat(zipName)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s  %.2f MB, binary %.2f MB\n", zipName, float64(st.Size())/1e6, float64(len(b))/1e6)
	if isExtension(o.entry) {
		fmt.Fprint(stdout, publish(zipName, arch))
	}
	return nil
}

// publish is the command that makes a layer version of a zip
// (https://docs.aws.amazon.com/cli/latest/reference/lambda/publish-layer-version.html).
func publish(zipName, goarch string) string {
	lambdaArch := map[string]string{"amd64": "x86_64"}[goarch]
	if lambdaArch == "" {
		lambdaArch = goarch
	}
	return fmt.Sprintf(`    aws lambda publish-layer-version --layer-name thaw-%s \
        --zip-file fileb://%s --license-info Apache-2.0 \
        --compatible-architectures %s --query LayerVersionArn --output text
`, goarch, filepath.ToSlash(zipName), lambdaArch)
}
