package compat

import (
	"fmt"
	"testing"
)

// config writes a configuration file and returns its name.
func config(t *testing.T, format string, args ...any) string {
	t.Helper()
	return file(t, "proxy.hcl", fmt.Sprintf(format, args...))
}
