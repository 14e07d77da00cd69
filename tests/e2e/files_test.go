package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/harness"
)

// fileValue is the secret in a file, which must hold what Vault's API answers,
// indented.
func fileValue(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	harness.Must(t, err)
	var indented bytes.Buffer
	if err := json.Indent(&indented, bytes.TrimSpace(text), "", "  "); err != nil || indented.String() != string(bytes.TrimSpace(text)) {
		t.Errorf("%s is not indented JSON: %v\n%s", name, err, text)
	}
	return answer{Response: &harness.Response{Status: http.StatusOK, Body: text}}.value()
}

func wantMode(t testing.TB, name string, want fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(name)
	harness.Must(t, err)
	if info.Mode() != want {
		t.Errorf("%s has mode %v, want %v", name, info.Mode(), want)
	}
}

// TestFileModeWritesBeforeTheFunctionStartsAndFollowsRotation: the files are
// there when the function's own init runs, nobody else may read them, and the
// next invocation after a rotation has the new value.
func TestFileModeWritesBeforeTheFunctionStartsAndFollowsRotation(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"default", "file"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			o := newSite(t)
			dir := filepath.Join(t.TempDir(), "made", "here")
			first, second := filepath.Join(dir, "app.json"), filepath.Join(dir, "old.json")
			v2, v1 := o.put("app"), o.putKV1("old")
			e := start(t, o.login(true).With(harness.Settings{
				"VAULT_RUN_MODE": mode, "VAULT_SECRET_PATH": "secret/data/app", "VAULT_SECRET_FILE": first,
				"VAULT_SECRET_PATH_OLD": "kv/old", "VAULT_SECRET_FILE_OLD": second,
			}), functionInit(func(context.Context, *environment) {
				if fileValue(t, first) != v2 || fileValue(t, second) != v1 {
					t.Error("the files hold something else than the secrets")
				}
			}))
			wantMode(t, dir, 0o700|fs.ModeDir)
			wantMode(t, first, 0o600)
			wantMode(t, second, 0o600)
			if a := e.get(t.Context(), "secret/data/app"); mode == "file" && a.Err == nil {
				t.Errorf("something serves under VAULT_RUN_MODE=file: %d", a.Status)
			}
			before, err := os.Stat(first)
			harness.Must(t, err)
			e.invoke(func(context.Context) {})
			if again, err := os.Stat(first); err != nil || !os.SameFile(before, again) {
				t.Errorf("the file was written again without need: %v", err)
			}
			for range 3 {
				e.freeze(20 * time.Millisecond)
				v2, v1 = o.put("app"), o.putKV1("old")
				e.invoke(func(context.Context) {
					harness.Eventually(t, patience, "the new value in the files", func() bool {
						return fileValue(t, first) == v2 && fileValue(t, second) == v1
					})
				})
			}
			wantMode(t, first, 0o600)
			// Origin trouble and a deleted secret leave the files as they are.
			harness.Must(t, e.Freeze())
			o.counter.Cut()
			e.invoke(func(context.Context) {})
			harness.Must(t, e.Freeze())
			harness.Must(t, o.counter.Mend())
			harness.Must(t, o.vault.Delete(t.Context(), "secret", "app"))
			e.invoke(func(context.Context) {
				harness.Eventually(t, patience, "a look at the secret", func() bool { return strings.Contains(e.log.String(), "rewrite secret files") })
			})
			if fileValue(t, first) != v2 {
				t.Error("the file of a deleted secret is another one")
			}
			if names, err := os.ReadDir(dir); err != nil || len(names) != 2 {
				t.Errorf("in the folder lie %v: %v", names, err)
			}
		})
	}
}

// TestFileModeExplainsAMissingSecret: with the path that KV v2 wants, and for
// all of them at once.
func TestFileModeExplainsAMissingSecret(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	o.put("app")
	dir := t.TempDir()
	_, err := tryStart(t, o.login(true).With(harness.Settings{
		"VAULT_SECRET_PATH": "secret/app", "VAULT_SECRET_FILE": filepath.Join(dir, "a"),
		"VAULT_SECRET_PATH_GONE": "secret/data/gone", "VAULT_SECRET_FILE_GONE": filepath.Join(dir, "b"),
		"VAULT_SECRET_PATH_SYS": "auth/approle/role", "VAULT_SECRET_FILE_SYS": filepath.Join(dir, "c"),
	}))
	reported := new(lambdaapi.Reported)
	if !errors.As(err, &reported) || reported.State != lambdaapi.InitError || reported.Report.Type != "Extension.SecretFileFailed" {
		t.Fatalf("start: %v, want an init/error", err)
	}
	for _, w := range []string{
		"VAULT_SECRET_PATH: ", "secret/data/app", "VAULT_SECRET_PATH_GONE: ", "secret/data/gone", "VAULT_SECRET_PATH_SYS: ", "policy",
	} {
		if !strings.Contains(reported.Report.Message, w) {
			t.Errorf("the report does not say %q:\n%s", w, reported.Report.Message)
		}
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("in the folder lie %v: %v", names, err)
	}
}

// TestG5FileModeFollowsNoForeignLink: a folder that is a link, or that others
// may write to, is refused.
func TestG5FileModeFollowsNoForeignLink(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	o.put("app")
	dir := t.TempDir()
	elsewhere, open := filepath.Join(dir, "elsewhere"), filepath.Join(dir, "open")
	harness.Must(t, errors.Join(os.Mkdir(elsewhere, 0o700), os.Symlink(elsewhere, filepath.Join(dir, "link")), os.Mkdir(open, 0o700), os.Chmod(open, 0o777)))
	for _, name := range []string{"link/secret.json", "open/secret.json"} {
		_, err := tryStart(t, o.login(true).With(harness.Settings{"VAULT_SECRET_PATH": "secret/data/app", "VAULT_SECRET_FILE": filepath.Join(dir, name)}))
		if reported := new(lambdaapi.Reported); !errors.As(err, &reported) {
			t.Errorf("%s: %v, want an init/error", name, err)
		}
	}
	for _, d := range []string{elsewhere, open} {
		if names, err := os.ReadDir(d); err != nil || len(names) != 0 {
			t.Errorf("in %s lie %v: %v", d, names, err)
		}
	}
}
