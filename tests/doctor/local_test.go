package doctor

import (
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// socket listens at a unix socket, and returns its path. Unless it is to be served,
// nobody takes connections there any more.
func socket(t *testing.T, served bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	harness.Must(t, err)
	if !served {
		ln.(*net.UnixListener).SetUnlinkOnClose(false)
		ln.Close()
		return path
	}
	server := &http.Server{Handler: http.NotFoundHandler()}
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	return path
}

// silent takes connections and never answers.
func silent(t *testing.T) string {
	t.Helper()
	return accepting(t, func(c net.Conn) { t.Cleanup(func() { c.Close() }) })
}

// accepting hands each connection that is made to it to a function, one after the
// other, and returns its address.
func accepting(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	harness.Must(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			handle(c)
		}
	}()
	return ln.Addr().String()
}

// tokenFile is the environment of a token in a file.
func (s *site) tokenFile(path string) []string {
	return []string{"VAULT_ADDR=" + s.vault.Addr(), "THAW_AUTH_METHOD=token_file", "THAW_TOKEN_FILE=" + path}
}

// localFaults are of the host that thaw runs on.
func localFaults() []fault {
	loop := func(name string) fault {
		return fault{name: name + " that is thaw's own listener", plant: func(s *site) ([]string, []string) {
			addr := harness.FreeAddr(s.t)
			return s.approle("THAW_LISTEN="+addr, name+"=http://"+addr), nil
		}, check: "self-loop", what: name + ": points back at thaw's own listener", fix: "a proxy's own address", exit: 2}
	}
	return []fault{
		loop("HTTP_PROXY"), loop("https_proxy"), loop("VAULT_PROXY_ADDR"), loop("VAULT_HTTP_PROXY"),
		{name: "a unix socket in a folder that is missing", plant: func(s *site) ([]string, []string) {
			return s.approle("THAW_LISTEN=unix://" + filepath.Join(s.t.TempDir(), "none", "s")), nil
		}, check: "listen", what: "no such file or directory", fix: "a folder that is there", exit: 1},
		{name: "a file where the unix socket should be", plant: func(s *site) ([]string, []string) {
			return s.approle("THAW_LISTEN=unix://" + file(s.t, "s", nil)), nil
		}, check: "listen", what: "a file that is no socket", fix: "THAW_LISTEN", exit: 1},
		{name: "another process at the unix socket", plant: func(s *site) ([]string, []string) {
			return s.approle("THAW_LISTEN=unix://" + socket(s.t, true)), nil
		}, check: "listen", what: "another process listens", fix: "THAW_LISTEN", exit: 1},
		{name: "a folder where a secret's file should be", plant: func(s *site) ([]string, []string) {
			return s.approle("VAULT_SECRET_PATH=secret/data/"+s.name+"/app", "VAULT_SECRET_FILE="+s.t.TempDir()), nil
		}, check: "files", what: "is a folder", fix: "VAULT_SECRET_FILE", exit: 1},
		{name: "a secret's file where nothing can be written", plant: func(s *site) ([]string, []string) {
			return s.approle("VAULT_SECRET_PATH=secret/data/"+s.name+"/app", "VAULT_SECRET_FILE=/proc/none/app.json"), nil
		}, check: "files", what: "/proc/none", fix: "VAULT_SECRET_FILE", exit: 1},
		{name: "the same, and it is optional", plant: func(s *site) ([]string, []string) {
			return s.approle("VAULT_SECRET_PATH=secret/data/"+s.name+"/app", "VAULT_SECRET_FILE=/proc/none/app.json", "THAW_FILE_OPTIONAL=true"), nil
		}, check: "files", level: "advice", what: "/proc/none", fix: "VAULT_SECRET_FILE", exit: 0},
		{name: "a token file that is not there", plant: func(s *site) ([]string, []string) {
			return s.tokenFile(filepath.Join(s.t.TempDir(), "token")), nil
		}, check: "auth", what: "read the token in ", fix: "what writes the token runs", exit: 1},
		{name: "a token file that is a folder", plant: func(s *site) ([]string, []string) {
			return s.tokenFile(s.t.TempDir()), nil
		}, check: "auth", what: "is a directory", fix: "write the token, and nothing else, to that file", exit: 1},
		{name: "an empty token file", plant: func(s *site) ([]string, []string) {
			return s.tokenFile(file(s.t, "token", []byte(" \n"))), nil
		}, check: "auth", what: "it is empty", fix: "write the token", exit: 1},
		{name: "a token file with more than a token", plant: func(s *site) ([]string, []string) {
			return s.tokenFile(file(s.t, "token", []byte("{\n  \"token\": \""+secret()+"\"\n}"))), nil
		}, check: "auth", what: "something else than one token", fix: "and nothing else", exit: 1},
		{name: "a secret id's file that is not there", plant: func(s *site) ([]string, []string) {
			return s.approle("THAW_SECRET_ID=", "THAW_SECRET_ID_FILE="+filepath.Join(s.t.TempDir(), "id")), nil
		}, check: "auth", what: "read the secret id in ", fix: "what writes the secret id runs", exit: 1},
		{name: "a JWT of a clock that is two hours ahead", plant: func(s *site) ([]string, []string) {
			return s.jwt(2 * time.Hour), nil
		}, check: "auth", what: "not yet valid", fix: "compare the clock", exit: 1},
		{name: "a namespace that does not exist", plant: func(s *site) ([]string, []string) {
			c := s.count() // Vault Enterprise's words; the community edition knows no namespaces
			c.Inject(harness.Fault{Path: "/v1/auth/token/lookup-self", Status: 404, Header: http.Header{"Content-Type": {"application/json"}},
				Body: `{"errors":["no handler for route \"auth/token/lookup-self\". route entry not found."]}`})
			return s.token(harness.TokenSpec{TTL: time.Hour}, "VLE_VAULT_ADDR="+c.Addr(), "VAULT_NAMESPACE=nowhere"), nil
		}, check: "auth", what: "knows no namespace nowhere", fix: "VAULT_NAMESPACE", exit: 1},
		{name: "a memcached that takes connections and is silent", plant: func(s *site) ([]string, []string) {
			return s.shared(silent(s.t), s.approle("THAW_AUDIENCE=team")...), nil
		}, check: "memcached", what: "does not answer", fix: "THAW_MEMCACHED", exit: 1},
	}
}

// TestWhatAThawThatIsGoneLeftIsNoFault: its socket is removed, and one at which a
// thaw serves is known.
func TestWhatAThawThatIsGoneLeftIsNoFault(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	path := socket(t, false)
	env := s.approle("THAW_LISTEN=unix://" + path)
	if r := s.examine(env); r.exit != 0 || !r.has("listen", "ok", "is free") {
		t.Errorf("left by one that is gone: exit status %d\n%s", r.exit, r.text)
	}
	p, err := harness.Start(harness.Command{Path: suite.thaw, Args: []string{"proxy"}, Env: env})
	harness.Must(t, err)
	t.Cleanup(func() { p.Stop(5 * time.Second) })
	serves(t, "unix", path)
	if r := s.examine(env); r.exit != 0 || !r.has("listen", "ok", "thaw listens on "+path) {
		t.Errorf("while it runs: exit status %d\n%s", r.exit, r.text)
	}
	second, err := harness.Start(harness.Command{Path: suite.thaw, Args: []string{"proxy"}, Env: env})
	harness.Must(t, err)
	<-second.Done()
	if second.ExitCode() != 1 || !strings.Contains(second.Output(), "another process serves there") {
		t.Errorf("a second of one configuration: exit status %d\n%s", second.ExitCode(), second.Output())
	}
}

func serves(t *testing.T, network, addr string) {
	t.Helper()
	harness.Eventually(t, 10*time.Second, "thaw serves", func() bool {
		nc, err := net.Dial(network, addr)
		if err == nil {
			nc.Close()
		}
		return err == nil
	})
}

// TestAThawBeforeAVaultThatHangsIsKnown: the doctor takes it for no other process, and
// the first look at it says that Vault does not answer. The address is given as the
// setting and the row Listeners have it.
func TestAThawBeforeAVaultThatHangsIsKnown(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	hung, addr := s.count(), harness.FreeAddr(t)
	hung.Stall()
	env := s.approle("VLE_VAULT_ADDR="+hung.Addr(), "THAW_LISTEN="+addr, "VAULT_CLIENT_TIMEOUT=1s", "VAULT_MAX_RETRIES=0")
	p, err := harness.Start(harness.Command{Path: suite.thaw, Args: []string{"proxy"}, Env: env})
	harness.Must(t, err)
	t.Cleanup(func() { p.Stop(5 * time.Second) })
	serves(t, "tcp", addr)
	status, err := harness.Start(harness.Command{Path: suite.thaw, Args: []string{"status", "-addr", addr}})
	harness.Must(t, err)
	<-status.Done()
	if !strings.Contains(status.Output(), "does not answer") {
		t.Errorf("exit status %d\n%s", status.ExitCode(), status.Output())
	}
	if r := s.examine(env); !r.has("listen", "ok", "thaw listens on "+addr) {
		t.Errorf("exit status %d\n%s", r.exit, r.text)
	}
}

// TestAPathMayBeGivenAsItIsAskedFor: with the address and /v1/ before it. None at all
// is a slip.
func TestAPathMayBeGivenAsItIsAskedFor(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, before := range []string{"", "/", "v1/", "/v1/", "http://127.0.0.1:8200/v1/", "https://vault.example.com/v1/"} {
		path := before + "secret/data/" + s.name + "/app"
		if r := s.examine(s.approle(), path); r.exit != 0 || !r.has("kv", "ok", "secret/data/"+s.name+"/app is there") {
			t.Errorf("%s: exit status %d\n%s", path, r.exit, r.text)
		}
	}
	for _, none := range []string{"", "/", "/v1/", "http://127.0.0.1:8200/v1/"} {
		if out, code := s.run(s.approle(), none); code != 2 || out != "" {
			t.Errorf("%q: exit status %d\n%s", none, code, out)
		}
	}
}
