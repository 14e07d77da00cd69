package compat

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/harness"
)

// secretIn is the field "v" of the secret in a file, as Vault's API returns it.
func secretIn(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var out struct {
		RequestID string `json:"request_id"`
		Data      struct{ Data struct{ V string } }
	}
	if err := json.Unmarshal(b, &out); err != nil {
		return "", fmt.Errorf("%s: %w in %s", path, err, b)
	}
	if out.RequestID == "" {
		return "", fmt.Errorf("%s is not what the API returns: %s", path, b)
	}
	return out.Data.Data.V, nil
}

func holds(t testing.TB, path, want string) {
	t.Helper()
	got, err := secretIn(path)
	harness.Must(t, err)
	if got != want {
		t.Errorf("%s holds %q, not %q", path, got, want)
	}
}

func TestVAULT_SECRET_PATH_WritesFilesAsTheAPIReturnsThem(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	o.put("b", "2")
	dir := filepath.Join(t.TempDir(), "new")
	o.start("VAULT_SECRET_PATH_DB="+o.data("a"), "VAULT_SECRET_FILE_DB="+dir+"/a.json",
		"VAULT_SECRET_PATH_API="+o.data("b"), "VAULT_SECRET_FILE_API="+dir+"/sub/b.json")
	holds(t, dir+"/a.json", "1")
	holds(t, dir+"/sub/b.json", "2")
	for path, mode := range map[string]os.FileMode{dir: 0o700, dir + "/sub": 0o700, dir + "/a.json": 0o600, dir + "/sub/b.json": 0o600} {
		info, err := os.Stat(path)
		harness.Must(t, err)
		if info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
	}
	b, err := os.ReadFile(dir + "/a.json")
	harness.Must(t, err)
	var indented bytes.Buffer
	harness.Must(t, json.Indent(&indented, bytes.TrimSpace(b), "", "  "))
	if strings.TrimSpace(string(b)) != indented.String() {
		t.Errorf("not indented: %s", b)
	}
	if left, err := filepath.Glob(dir + "/.*"); err != nil || len(left) != 0 {
		t.Errorf("left behind: %q %v", left, err)
	}
}

// The default is /tmp/vault/secret.json, and a relative file lies under
// /tmp/vault.
func TestVAULT_SECRET_FILE_DefaultAndRelative(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	relative := unique("thaw-test") + ".json"
	t.Cleanup(func() {
		os.Remove("/tmp/vault/secret.json")
		os.Remove("/tmp/vault/" + relative)
	})
	o.start("VAULT_SECRET_PATH="+o.data("a"), "VAULT_SECRET_PATH_R="+o.data("a"), "VAULT_SECRET_FILE_R="+relative)
	holds(t, "/tmp/vault/secret.json", "1")
	holds(t, "/tmp/vault/"+relative, "1")
}

func TestVAULT_SECRET_PATH_BadPairsNameTheVariables(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		env  []string
		says []string
	}{
		{"no file", []string{"VAULT_SECRET_PATH_A=s/data/a"}, []string{"VAULT_SECRET_PATH_A", "VAULT_SECRET_FILE_A"}},
		{"no path", []string{"VAULT_SECRET_FILE_A=/tmp/x/a"}, []string{"VAULT_SECRET_PATH_A", "VAULT_SECRET_FILE_A"}},
		{"an empty suffix", []string{"VAULT_SECRET_PATH_=s/data/a", "VAULT_SECRET_FILE_=/tmp/x/a"}, []string{"VAULT_SECRET_PATH_"}},
		{"two on one file", []string{"VAULT_SECRET_PATH_A=s/data/a", "VAULT_SECRET_FILE_A=/tmp/x/a", "VAULT_SECRET_PATH_B=s/data/b", "VAULT_SECRET_FILE_B=/tmp/x/../x/a"}, []string{"VAULT_SECRET_PATH_A", "VAULT_SECRET_PATH_B", "/tmp/x/a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			contains(t, refused(t, nil, append(c.env, "VLE_VAULT_ADDR="+nowhere)...), c.says...)
		})
	}
}

// #31, #48: the function's own init finds the file, and the file follows a
// rotation.
func TestVLEIssue31And48_FilesAreThereBeforeFunctionCodeAndFollowRotation(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	path := t.TempDir() + "/secret.json"
	atInit := ""
	f := lambda(t, lambdaapi.Function{}, func(context.Context, *thaw) (err error) {
		atInit, err = secretIn(path)
		return err
	}, append(o.approleEnv(harness.RoleSpec{}), "VLE_VAULT_ADDR="+o.count.Addr(), "VAULT_SECRET_PATH="+o.data("a"), "VAULT_SECRET_FILE="+path)...)
	if atInit != "1" {
		t.Errorf("the function's init found %q", atInit)
	}
	harness.Must(t, f.env.Freeze())
	o.put("a", "2")
	f.invoke(func() {
		harness.Eventually(t, patience, "the rotated secret in the file", func() bool { v, err := secretIn(path); return err == nil && v == "2" })
	})
	harness.Must(t, os.Remove(path)) // someone tidies up: the next change brings it back
	o.put("a", "3")
	f.invoke(func() {
		harness.Eventually(t, patience, "the file again", func() bool { v, err := secretIn(path); return err == nil && v == "3" })
	})
}

// #25, #129: a path without /data/ on a KV v2 mount.
func TestVLEIssue25And129_WrongKVv2PathExplainsItself(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	t.Run("in file mode", func(t *testing.T) {
		t.Parallel()
		path := t.TempDir() + "/secret.json"
		report := initFails(t, "VLE_VAULT_ADDR="+o.count.Addr(), "VAULT_TOKEN="+o.token, "VAULT_SECRET_PATH="+o.kv+"/a", "VAULT_SECRET_FILE="+path)
		if report.Type != "Extension.SecretFileFailed" {
			t.Errorf("type %s", report.Type)
		}
		contains(t, report.Message, "VAULT_SECRET_PATH", o.kv+"/a", o.kv+"/data/a")
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("there is a file: %v", err)
		}
	})
	t.Run("through the proxy", func(t *testing.T) {
		t.Parallel()
		o.start().get(o.kv + "/a").status(http.StatusNotFound).says("Invalid path for a versioned K/V secrets engine")
	})
}

func TestVAULT_SECRET_PATH_MissingSecretNamesThePathAndWritesNoNull(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("gone", "1")
	harness.Must(t, o.Delete(t.Context(), o.kv, "gone"))
	for _, name := range []string{"never", "gone"} {
		path := t.TempDir() + "/secret.json"
		vars := []string{"VLE_VAULT_ADDR=" + o.count.Addr(), "VAULT_TOKEN=" + o.token, "VAULT_SECRET_PATH_X=" + o.data(name), "VAULT_SECRET_FILE_X=" + path}
		contains(t, initFails(t, vars...).Message, "VAULT_SECRET_PATH_X", o.data(name), "no such secret")
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s: there is a file: %v", name, err)
		}
		// Asked for, the function starts without.
		f := lambda(t, lambdaapi.Function{}, nil, append(vars, "THAW_FILE_OPTIONAL=true")...)
		contains(t, f.logs.await(t, o.data(name), nil), `"level":"WARN"`)
	}
}

func TestVAULT_SECRET_PATH_FilesWaitAtMostTHAW_FILE_TIMEOUT(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.count.Stall()
	report := initFails(t, "VLE_VAULT_ADDR="+o.count.Addr(), "VAULT_TOKEN="+o.token, "VAULT_SECRET_PATH="+o.data("a"),
		"VAULT_SECRET_FILE="+t.TempDir()+"/s", "THAW_FILE_TIMEOUT=300ms")
	contains(t, report.Message, "THAW_FILE_TIMEOUT", o.data("a"))
}

func TestVAULT_SECRET_FILE_SnapStartWritesAfterTheRestoreAndWarns(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	path := t.TempDir() + "/secret.json"
	f := lambda(t, lambdaapi.Function{InitType: lambdaapi.SnapStart}, nil, append(o.approleEnv(harness.RoleSpec{}),
		"VLE_VAULT_ADDR="+o.count.Addr(), "VAULT_SECRET_PATH="+o.data("a"), "VAULT_SECRET_FILE="+path)...)
	if _, err := os.Stat(path); !os.IsNotExist(err) || o.count.Total() != 0 {
		t.Errorf("the snapshot has the secret: %v, %d requests", err, o.count.Total())
	}
	contains(t, f.logs.await(t, "SnapStart", nil), `"level":"WARN"`)
	harness.Must(t, f.env.Freeze())
	f.invoke(func() {
		harness.Eventually(t, patience, "the file", func() bool { v, err := secretIn(path); return err == nil && v == "1" })
	})
}

func TestVAULT_RUN_MODE(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode         string
		files, proxy bool
	}{
		{"", true, true}, {"default", true, true}, {"DEFAULT", true, true},
		{"file", true, false}, {"File", true, false},
		{"proxy", false, true}, {"PROXY", false, true},
	} {
		t.Run(c.mode, func(t *testing.T) {
			t.Parallel()
			o := shared(t)
			o.put("a", "1")
			path := t.TempDir() + "/secret.json"
			listen := harness.FreeAddr(t)
			p := launch(t, nil, "VLE_VAULT_ADDR="+o.count.Addr(), "VAULT_TOKEN="+o.token, "VAULT_RUN_MODE="+c.mode,
				"THAW_LISTEN="+listen, "VAULT_SECRET_PATH="+o.data("a"), "VAULT_SECRET_FILE="+path)
			p.base = "http://" + listen
			if c.proxy {
				p.serving()
				p.get(o.data("a")).is("1")
			} else {
				harness.Eventually(t, patience, "the file", func() bool { _, err := os.Stat(path); return err == nil })
				if _, err := p.try(t.Context(), http.MethodGet, o.data("a"), "", nil); err == nil {
					t.Error("something serves")
				}
			}
			if _, err := os.Stat(path); (err == nil) != c.files {
				t.Errorf("file: %v", err)
			}
		})
	}
	contains(t, refused(t, nil, "VLE_VAULT_ADDR="+nowhere, "VAULT_RUN_MODE=both"), "VAULT_RUN_MODE", "both", "proxy")
}
