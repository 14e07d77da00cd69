package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTheHostsTimesComeFromHostJSON(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text, override  string
		function, start time.Duration
		bad             string
	}{
		{`{}`, "", 5 * time.Minute, 28 * time.Second, ""},
		{`{"functionTimeout":"00:10:00","customHandler":{"initializationTimeout":"00:02:00"}}`, "", 10 * time.Minute, 118 * time.Second, ""},
		{`{"functionTimeout":"00:10:00"}`, "01:00:00", time.Hour, 28 * time.Second, ""},
		{`{"functionTimeout":"-1"}`, "", 0, 28 * time.Second, ""},
		{`{"customHandler":{"initializationTimeout":"00:00:01.5"}}`, "", 5 * time.Minute, 750 * time.Millisecond, ""},
		{`{"functionTimeout":"soon"}`, "", 5 * time.Minute, 28 * time.Second, "functionTimeout"},
		{`{"customHandler":{"initializationTimeout":"-00:00:01"}}`, "", 5 * time.Minute, 28 * time.Second, "initializationTimeout"},
		{`{`, "", 5 * time.Minute, 28 * time.Second, "host.json"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "host.json"), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readHostJSON(dir, c.override)
		if got.function != c.function || got.start != c.start || (err == nil) != (c.bad == "") || err != nil && !strings.Contains(err.Error(), c.bad) {
			t.Errorf("%s: %+v %v", c.text, got, err)
		}
	}
	if got, err := readHostJSON("", ""); err != nil || got.function != 5*time.Minute {
		t.Error(got, err)
	}
}

func TestParseSpan(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"00:10:00": 10 * time.Minute, "10:00": 10 * time.Hour, "1.02:03:04.5": 26*time.Hour + 3*time.Minute + 4500*time.Millisecond, "-1": -24 * time.Hour, "2": 48 * time.Hour,
	} {
		if got, err := parseSpan(text); err != nil || got != want {
			t.Errorf("%s: %v %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "1:2:3:4", "NaN", "1:NaN", "99999999", "1.x:00:00", "--1", ":"} {
		if got, err := parseSpan(text); err == nil {
			t.Errorf("%q is taken as %v", text, got)
		}
	}
}

func FuzzParseSpan(f *testing.F) {
	for _, s := range []string{"00:10:00", "1.02:03:04.5", "-1", "x"} {
		f.Add(s)
	}
	const most = 40000 * 24 * time.Hour
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := parseSpan(text); err == nil && (d > most || d < -most) {
			t.Errorf("%q is %v", text, d)
		}
	})
}
