package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// Extension is where Lambda puts the extension's binary, from a layer or in a
// container image. The function's code sees it too.
const Extension = "/opt/extensions/thaw"

// Doctor returns what runs the binary's doctor as a child of this function:
// with its environment, its network and its role. The report names settings,
// addresses and paths, and holds no secret.
func Doctor(binary string) func(context.Context, []string) (json.RawMessage, error) {
	return func(ctx context.Context, args []string) (json.RawMessage, error) {
		limit := 30 * time.Second
		if d, ok := ctx.Deadline(); ok {
			limit = max(time.Until(d)-time.Second, time.Second)
		}
		cmd := exec.CommandContext(ctx, binary, append([]string{"doctor", "-json", "-timeout", limit.String()}, args...)...)
		cmd.WaitDelay = time.Second
		out, err := cmd.Output()
		// The exit status repeats what the report says.
		if bad := new(exec.ExitError); err != nil && !errors.As(err, &bad) {
			return nil, fmt.Errorf("run %s: %w; is the thaw layer part of this function?", binary, err)
		}
		if !json.Valid(out) {
			return nil, fmt.Errorf("%s doctor gave no report; a longer timeout of the function may help", binary)
		}
		return out, nil
	}
}

// examine answers the event {"doctor": true}.
func (f *Function) examine(ctx context.Context, login bool) (Answer, error) {
	if f.Examine == nil {
		return Answer{}, errors.New("this function does not run the doctor")
	}
	args := f.paths
	if login {
		args = append([]string{"-login"}, args...)
	}
	report, err := f.Examine(ctx, args)
	if err != nil {
		return Answer{}, err
	}
	var r struct {
		Healthy bool `json:"healthy"`
	}
	_ = json.Unmarshal(report, &r) // was found valid; another shape is not healthy
	return Answer{OK: r.Healthy, Doctor: report}, nil
}
