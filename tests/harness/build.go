package harness

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// buildTime bounds a build on an empty cache.
const buildTime = 10 * time.Minute

// Build builds a package of this repository, such as "./extension", into the
// file out, with the flags of a release (BUILD in the Makefile): what is tested
// and measured is what ships. The tag "layer" gives the binary of the Lambda
// layer.
func Build(ctx context.Context, out, pkg string, tags ...string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, buildTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags", strings.Join(append(tags, "nethttpomithttp2"), ","), "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Dir, cmd.Env = root, append(FromEnv().All, "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, text)
	}
	return nil
}
