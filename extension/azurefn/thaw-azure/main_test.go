package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/extension/azurefn"
	"github.com/thaw-project/thaw/functions/warmup"
)

func TestTheCommandLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args   []string
		status int
		out    string
	}{
		{[]string{"version"}, exitOK, "thaw-azure dev"},
		{[]string{"--help"}, exitOK, "custom handler"},
		{[]string{"-nonsense"}, exitUsage, "custom handler"},
		{[]string{"--", "true"}, exitUsage, "VLE_VAULT_ADDR"},
		{nil, exitUsage, "VLE_VAULT_ADDR"},
	} {
		var out bytes.Buffer
		if got := run(t.Context(), append([]string{"thaw-azure"}, c.args...), nil, &out, &out); got != c.status || !strings.Contains(out.String(), c.out) {
			t.Errorf("%v: status %d, %s", c.args, got, &out)
		}
	}
	// Outside a function app it says who starts it.
	var out bytes.Buffer
	if got := run(t.Context(), []string{"thaw-azure"}, []string{"VAULT_ADDR=https://v", "THAW_AUTH_METHOD=none"}, &out, &out); got != 1 || !strings.Contains(out.String(), azurefn.PortVariable) {
		t.Errorf("status %d, %s", got, &out)
	}
}

// TestTheTimersLogTellsTheOutcomeAndNoPaths: an HTTP route of the app may show
// an answer to anybody.
func TestTheTimersLogTellsTheOutcomeAndNoPaths(t *testing.T) {
	t.Parallel()
	failed := map[string]string{"secret/hidden": "403"}
	for want, s := range map[string]warmup.Summary{
		"outcome=complete pass=full":                      {Pass: "full", Leader: true, Complete: true},
		"outcome=incomplete, the next run goes on pass= ": {Leader: true, Failed: failed, Resume: &warmup.Resume{After: "secret/hidden", Missing: 7, Reason: "the deadline"}},
		"outcome=incomplete, the next run":                {Leaderless: true, Resume: &warmup.Resume{Reason: "memcached does not answer"}},
		"outcome=left to another instance":                {},
	} {
		lines := strings.Join(report(s, false), "\n")
		if !strings.HasPrefix(lines, want) || strings.Contains(lines, "hidden") {
			t.Error(lines)
		}
	}
}
