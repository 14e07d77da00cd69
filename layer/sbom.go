package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

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
