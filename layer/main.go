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
	"archive/zip"
	"bytes"
	"cmp"
	"compress/flate"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"
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
	var packed bytes.Buffer
	err = pack(&packed, o.entry, b)
	if err == nil {
		err = os.WriteFile(zipName, packed.Bytes(), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", zipName, err)
	}
	line := fmt.Sprintf("%x  %s\n", sha256.Sum256(packed.Bytes()), filepath.Base(zipName))
	if err := os.WriteFile(zipName+".sha256", []byte(line), 0o644); err != nil {
		return fmt.Errorf("write the checksum: %w", err)
	}
	if o.tools != "" {
		if err := writeList(strings.TrimSuffix(zipName, ".zip")+".cdx.json", o.tools, o.version, binary); err != nil {
			return fmt.Errorf("list what is in %s: %w", binary, err)
		}
	}
	fmt.Fprintf(stdout, "%s  %.2f MB, binary %.2f MB\n", zipName, float64(packed.Len())/1e6, float64(len(b))/1e6)
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

// pack writes a zip file with the binary as its only entry.
func pack(w io.Writer, entry string, binary []byte) error {
	z := zip.NewWriter(w)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(w, flate.BestCompression)
	})
	header := &zip.FileHeader{
		Name:     entry,
		Method:   zip.Deflate,
		Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC), // the first time that zip knows
	}
	header.SetMode(0o755)
	f, err := z.CreateHeader(header)
	if err != nil {
		return err
	}
	if _, err := f.Write(binary); err != nil {
		return err
	}
	return z.Close()
}

// isExtension reports whether Lambda starts what lies there as an extension.
func isExtension(entry string) bool { return path.Dir(entry) == "extensions" }

// writeList has cyclonedx-gomod, which the go.mod called tools pins, write the
// list of the modules that are linked into a binary: CycloneDX 1.5
// (https://cyclonedx.org/docs/1.5/json/), without a time or a random number.
func writeList(name, tools, version, binary string) error {
	tools, err := filepath.Abs(tools)
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "tool", "-modfile="+tools, "cyclonedx-gomod", "bin",
		"-json", "-std", "-noserial", "-notimestamp", "-output-version", "1.5", "-version", version, "-output", name, binary)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cyclonedx-gomod: %w\n%s", err, out)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if b, err = withoutTool(b); err != nil {
		return fmt.Errorf("read what cyclonedx-gomod wrote: %w", err)
	}
	return os.WriteFile(name, b, 0o644)
}

// withoutTool drops the hashes of the tool's own executable, which another
// machine builds differently: one binary has one list.
func withoutTool(list []byte) ([]byte, error) {
	var all map[string]any
	if err := json.Unmarshal(list, &all); err != nil {
		return nil, err
	}
	metadata, _ := all["metadata"].(map[string]any)
	tools, _ := metadata["tools"].([]any)
	if len(tools) == 0 {
		return nil, errors.New("it does not say which tool wrote it")
	}
	for _, t := range tools {
		if tool, ok := t.(map[string]any); ok {
			delete(tool, "hashes")
		}
	}
	return json.MarshalIndent(all, "", "  ")
}
