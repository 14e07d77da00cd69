package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// TestEveryDocumentedCommandWorksAsPrinted runs a page's commands in a clean
// copy of the repository. Addresses of the examples become this test's: ports
// are never fixed here.
func TestEveryDocumentedCommandWorksAsPrinted(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds the product and runs real components")
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("NOT TESTED: no bash")
	}
	for _, p := range everyPage(t) {
		script := p.script()
		if script == "" {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			if strings.Contains(script, "vault delete auth/aws/") {
				harness.Must(s.t, s.vault.EnableAuth(t.Context(), "aws", "aws"))
			}
			dir := clone(t)
			run := exec.CommandContext(t.Context(), bash, "-c", s.here("set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"+script))
			run.Dir = dir
			run.Env = append(harness.FromEnv().All, "PATH="+s.bin+string(os.PathListSeparator)+harness.FromEnv().Path, "VAULT_ADDR="+s.vault.Addr(), "VAULT_TOKEN="+s.vault.RootToken())
			run.WaitDelay = 10 * time.Second
			out, err := run.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// script is what of a page is run.
func (p page) script() string {
	var b strings.Builder
	for _, block := range p.blocks {
		if block.language == "sh" && block.needs == "" {
			b.WriteString(block.text)
		}
	}
	return b.String()
}

// site is what the commands of a page find.
type site struct {
	t     *testing.T
	vault *harness.Vault
	bin   string            // a folder with the vault command
	at    map[string]string // addresses of the text, and what they are here
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, vault: harness.Raft(t), bin: t.TempDir()}
	harness.Must(s.t, os.Symlink(s.vault.Binary(), filepath.Join(s.bin, "vault")))
	for _, path := range []string{"app", "my-function"} {
		_, err := s.vault.Put(t.Context(), "secret", path, map[string]any{"user": "u", "password": "p"})
		harness.Must(s.t, err)
	}
	s.at = map[string]string{
		"127.0.0.1:8200":  s.thaw("VAULT_TOKEN=" + s.vault.RootToken()),
		"127.0.0.1:8100":  harness.FreeAddr(t),
		"127.0.0.1:8300":  harness.FreeAddr(t),
		"127.0.0.1:11211": harness.Memcache(t, harness.MemcachedConfig{}).Addr(),
	}
	return s
}

// here puts this site's addresses for those of the text.
func (s *site) here(text string) string {
	for from, to := range s.at {
		text = strings.ReplaceAll(text, from, to)
	}
	return text
}

// thaw runs one before the site's Vault, and returns its address.
func (s *site) thaw(env ...string) string {
	s.t.Helper()
	addr := harness.FreeAddr(s.t)
	p, err := harness.Start(harness.Command{Path: binary(s.t), Args: []string{"proxy"}, Env: append(env, "VAULT_ADDR="+s.vault.Addr(), "THAW_LISTEN="+addr)})
	harness.Must(s.t, err)
	s.t.Cleanup(func() { p.Stop(5 * time.Second) })
	harness.AwaitListener(s.t, addr)
	return addr
}

// clone copies what git has, or would take, as a new user has it.
func clone(t *testing.T) string {
	t.Helper()
	ls := exec.CommandContext(t.Context(), "git", "ls-files", "-co", "--exclude-standard", "-z")
	ls.Dir = root(t)
	out, err := ls.Output()
	if err != nil {
		t.Skipf("NOT TESTED: git does not list the files: %v", err)
	}
	dir := t.TempDir()
	for name := range strings.SplitSeq(string(out), "\x00") {
		from, to := filepath.Join(root(t), name), filepath.Join(dir, name)
		info, err := os.Stat(from)
		if name == "" || err != nil || !info.Mode().IsRegular() {
			continue // deleted, and not committed yet
		}
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o755)
		}
		if err == nil {
			err = os.WriteFile(to, text, info.Mode().Perm())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var (
	variable   = regexp.MustCompile(`\$\{?([A-Za-z_][A-Za-z0-9_]*)`)
	assignment = regexp.MustCompile(`(?m)(?:^|[\s;]|export )([A-Za-z_][A-Za-z0-9_]*)=`)
	folder     = regexp.MustCompile(`(?m)^cd (\S+)`)
	program    = regexp.MustCompile(`(?m)(?:^|&& |\|\| |; |\$\()([a-z][a-z0-9_./-]*)`)
)

// TestCommandsThatCannotRunHereAreWellFormed: they parse, call what is known,
// go to folders that there are, and use only variables that the page sets.
func TestCommandsThatCannotRunHereAreWellFormed(t *testing.T) {
	t.Parallel()
	programs := []string{"aws", "az", "base64", "cd", "curl", "docker", "export", "func", "git", "make", "openssl", "sam", "terraform", "vault"}
	marked := 0
	for _, p := range everyPage(t) {
		set := []string{"HOME", "PATH", "PWD", "VAULT_ADDR", "VAULT_TOKEN"}
		for _, b := range p.blocks {
			if b.language != "sh" {
				continue
			}
			for _, m := range assignment.FindAllStringSubmatch(b.text, -1) {
				set = append(set, m[1])
			}
			for _, m := range variable.FindAllStringSubmatch(b.text, -1) {
				if !slices.Contains(set, m[1]) {
					t.Errorf("%s:%d: $%s comes from nowhere", p.name, b.line, m[1])
				}
			}
			check := exec.CommandContext(t.Context(), "bash", "-n")
			check.Stdin = strings.NewReader(b.text)
			if out, err := check.CombinedOutput(); err != nil {
				t.Errorf("%s:%d: %v\n%s", p.name, b.line, err, out)
			}
			if b.needs == "" {
				continue
			}
			marked++
			joined := strings.ReplaceAll(b.text, "\\\n", " ")
			for _, m := range program.FindAllStringSubmatch(joined, -1) {
				if !slices.Contains(programs, m[1]) {
					t.Errorf("%s:%d: %s is not a program that is known", p.name, b.line, m[1])
				}
			}
			for _, m := range folder.FindAllStringSubmatch(joined, -1) {
				if info, err := os.Stat(filepath.Join(root(t), m[1])); err != nil || !info.IsDir() {
					t.Errorf("%s:%d: there is no folder %s", p.name, b.line, m[1])
				}
			}
		}
	}
	if marked == 0 {
		t.Error("no block is marked")
	}
}
