package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// times are the host's, as host.json sets them
// (https://learn.microsoft.com/en-us/azure/azure-functions/functions-host-json).
type times struct {
	function time.Duration // after which the host ends an invocation; 0: never
	start    time.Duration // for the handler to come up, less what it takes to say why it did not
}

// hostFile is host.json, as far as it matters.
type hostFile struct {
	FunctionTimeout string `json:"functionTimeout"`
	CustomHandler   struct {
		InitializationTimeout string `json:"initializationTimeout"`
		Description           struct {
			Executable string   `json:"defaultExecutablePath"`
			Arguments  []string `json:"arguments"`
		} `json:"description"`
	} `json:"customHandler"`
}

// read reads the host.json of the app in a folder.
func (h *hostFile) read(root string) error {
	text, err := os.ReadFile(filepath.Join(root, "host.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, h); err != nil {
		return fmt.Errorf("host.json is not JSON: %w", err)
	}
	return nil
}

// Times of the host without a setting: a function's is that of the Consumption
// plan, the shortest.
const (
	defaultFunction = 5 * time.Minute
	defaultStart    = 30 * time.Second
	startSpare      = 2 * time.Second
)

// readHostJSON reads the app's host.json; override is the app setting that wins
// over its functionTimeout. With an error the times are the host's own.
func readHostJSON(root, override string) (times, error) {
	t := times{function: defaultFunction, start: defaultStart - startSpare}
	var host hostFile
	if root != "" {
		if err := host.read(root); err != nil {
			return t, err
		}
	}
	if v := cmp.Or(override, host.FunctionTimeout); v != "" {
		d, err := parseSpan(v)
		if err != nil {
			return t, fmt.Errorf("functionTimeout: %w", err)
		}
		t.function = max(d, 0)
	}
	if v := host.CustomHandler.InitializationTimeout; v != "" {
		d, err := parseSpan(v)
		if err != nil || d <= 0 {
			return t, fmt.Errorf("customHandler.initializationTimeout: %q is no time", v)
		}
		t.start = max(d-startSpare, d/2)
	}
	return t, nil
}

// parseSpan reads a .NET TimeSpan: [-][d.]hh:mm[:ss[.fffffff]], or -1 for none
// (https://learn.microsoft.com/en-us/dotnet/standard/base-types/standard-timespan-format-strings).
func parseSpan(v string) (time.Duration, error) {
	text, negative := strings.CutPrefix(v, "-")
	parts := strings.Split(text, ":") // of which the first is days
	if days, hours, ok := strings.Cut(parts[0], "."); ok && len(parts) > 1 {
		parts = slices.Replace(parts, 0, 1, days, hours)
	} else if len(parts) > 1 {
		parts = slices.Insert(parts, 0, "0")
	}
	var total time.Duration
	units := []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second}
	for i, p := range parts {
		f, err := strconv.ParseFloat(p, 64)
		if err != nil || i >= len(units) || !(f >= 0 && f <= 10000) {
			return 0, fmt.Errorf("%q is not a time such as 00:10:00", v)
		}
		total += time.Duration(f * float64(units[i]))
	}
	if negative {
		total = -total
	}
	return total, nil
}
