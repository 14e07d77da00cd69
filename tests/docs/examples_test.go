package docs

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
	"github.com/thaw-project/thaw/tests/standin"
)

// example is how a language's block of docs/examples.md is run.
type example struct {
	language string
	program  string   // what must be there; else the test is skipped, and says so
	file     string   // where the block goes
	before   string   // put before it, in the file
	after    string   // put behind it
	more     []string // name and text of further files
	build    []string // a command
	run      []string // a command; its output has the secret's keys
}

func examples() []example {
	return []example{
		{language: "python", program: "python3", file: "app.py", after: "\nfrom types import SimpleNamespace\nprint(handler({}, SimpleNamespace(aws_request_id=\"id-1\")))\n", run: []string{"python3", "app.py"}},
		{language: "js", program: "node", file: "app.mjs", after: "\nconsole.log(JSON.stringify(await handler({}, { awsRequestId: \"id-1\" })));\n", run: []string{"node", "app.mjs"}},
		{
			language: "go", program: "go", file: "handler.go", more: []string{"go.mod", "module example\n\ngo 1.26\n",
				"main.go", "package main\n\nimport (\n\t\"context\"\n\t\"fmt\"\n)\n\nfunc main() { fmt.Println(secret(context.Background(), \"id-1\")) }\n"},
			run: []string{"go", "run", "."},
		},
		{
			language: "java", program: "javac", file: "Handler.java", more: []string{"Main.java",
				"public class Main { public static void main(String[] a) throws Exception { System.out.println(new Handler().secret(\"id-1\")); } }\n"},
			build: []string{"javac", "Handler.java", "Main.java"}, run: []string{"java", "-cp", ".", "Main"},
		},
		{language: "ruby", program: "ruby", file: "app.rb", after: "\nputs handler(event: {}, context: Struct.new(:aws_request_id).new(\"id-1\"))\n", run: []string{"ruby", "app.rb"}},
		{
			language: "csharp", program: "dotnet", file: "Function.cs", before: "using System;\nusing System.Net.Http;\nusing System.Threading.Tasks;\n",
			more: []string{"app.csproj", "<Project Sdk=\"Microsoft.NET.Sdk\"><PropertyGroup><TargetFramework>net8.0</TargetFramework><OutputType>Library</OutputType></PropertyGroup></Project>\n"},
			run:  []string{"dotnet", "build"},
		},
	}
}

// beforeStandIn runs a thaw before a stand-in for Vault that has the secret of
// the examples.
func beforeStandIn(t *testing.T, env ...string) (addr string, p *harness.Process) {
	t.Helper()
	o := standin.New(standin.Options{RootToken: "root-of-the-stand-in"})
	o.Root(http.MethodPost, "secret/data/app", `{"data":{"user":"u","password":"planted"}}`)
	server := httptest.NewServer(o)
	t.Cleanup(server.Close)
	addr = harness.FreeAddr(t)
	p, err := harness.Start(harness.Command{Path: binary(t), Args: []string{"proxy"},
		Env: append(env, "VAULT_ADDR="+server.URL, "VAULT_TOKEN=root-of-the-stand-in", "THAW_LISTEN="+addr)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(5 * time.Second) })
	harness.AwaitListener(t, addr)
	return addr, p
}

func TestEveryExampleReadsTheSecret(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds the product and runs other languages")
	}
	page := read(t, "docs/examples.md")
	for _, e := range examples() {
		t.Run(e.language, func(t *testing.T) {
			t.Parallel()
			text := only(t, page, e.language)
			if text == "" {
				return
			}
			if _, err := exec.LookPath(e.program); err != nil {
				t.Skipf("NOT TESTED: no %s", e.program)
			}
			addr, _ := beforeStandIn(t)
			dir := t.TempDir()
			text = strings.ReplaceAll(text, "127.0.0.1:8200", addr)
			files := append([]string{e.file, e.before + text + e.after}, e.more...)
			for i := 0; i < len(files); i += 2 {
				if err := os.WriteFile(filepath.Join(dir, files[i]), []byte(files[i+1]), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if e.build != nil {
				command(t, dir, e.build)
			}
			if _, err := exec.LookPath(e.run[0]); err != nil {
				t.Skipf("compiled, and NOT RUN: no %s", e.run[0])
			}
			out := command(t, dir, e.run)
			if e.language != "csharp" && (!strings.Contains(out, "password") || !strings.Contains(out, "user")) {
				t.Errorf("the secret's keys are not in %q", out)
			}
		})
	}
}

func command(t *testing.T, dir string, args []string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(harness.FromEnv().All, "GOFLAGS=-mod=mod", "GOWORK=off", "GOTOOLCHAIN=local")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestEveryLanguageHasAnExampleThatIsTested: none can go wrong unseen.
func TestEveryLanguageHasAnExampleThatIsTested(t *testing.T) {
	t.Parallel()
	for _, b := range read(t, "docs/examples.md").blocks {
		if b.language == "sh" {
			continue // commands_test.go runs it
		}
		if !slices.ContainsFunc(examples(), func(e example) bool { return e.language == b.language }) {
			t.Errorf("nothing tests the example in %s", b.language)
		}
	}
}

// TestTheAccessLogLooksAsDocumented: the same keys, in the same order.
func TestTheAccessLogLooksAsDocumented(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds the product")
	}
	addr, p := beforeStandIn(t, "THAW_ACCESS_LOG=true")
	for range 2 {
		res, err := http.Get("http://" + addr + "/v1/secret/data/app")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	p.Stop(5 * time.Second)
	lines := strings.Split(strings.TrimSpace(p.Stdout()), "\n")
	var got, want map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &got); err != nil {
		t.Fatalf("%v: %s", err, p.Stdout())
	}
	if err := json.Unmarshal([]byte(only(t, read(t, "docs/guarantees.md"), "json")), &want); err != nil {
		t.Fatal(err)
	}
	if g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(g, w) || got["result"] != "hit" {
		t.Errorf("%v, and documented is %v: %v", g, w, got)
	}
	if strings.Contains(p.Output(), "planted") || strings.Contains(p.Output(), "root-of-the-stand-in") {
		t.Errorf("a secret is in the log: %s", p.Output())
	}
}

// TestEveryHandlerOfAzureReadsTheSecret runs the handlers of docs/azure.md as
// thaw-azure does: each listens where it is told to, and is asked over HTTP.
func TestEveryHandlerOfAzureReadsTheSecret(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds the product and runs other languages")
	}
	page := read(t, "docs/azure.md")
	for language, program := range map[string]string{"js": "node", "python": "python3"} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(program); err != nil {
				t.Skipf("NOT TESTED: no %s", program)
			}
			addr, _ := beforeStandIn(t)
			file := filepath.Join(t.TempDir(), "handler.cjs")
			harness.Must(t, os.WriteFile(file, []byte(strings.ReplaceAll(only(t, page, language), "127.0.0.1:8200", addr)), 0o600))
			listen := harness.FreeAddr(t)
			port := listen[strings.LastIndex(listen, ":")+1:]
			p, err := harness.Start(harness.Command{Path: program, Args: []string{file}, Env: append(harness.FromEnv().All, "FUNCTIONS_CUSTOMHANDLER_PORT="+port)})
			harness.Must(t, err)
			t.Cleanup(func() { p.Stop(5 * time.Second) })
			harness.AwaitListener(t, listen)
			res, err := http.Get("http://" + listen + "/api/hello")
			harness.Must(t, err)
			defer res.Body.Close()
			var got struct{ Keys []string }
			if err := json.NewDecoder(res.Body).Decode(&got); err != nil || !slices.Equal(got.Keys, []string{"password", "user"}) {
				t.Errorf("%d %v %v\n%s", res.StatusCode, got, err, p.Output())
			}
		})
	}
}
