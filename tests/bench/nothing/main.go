// Command nothing is the extension that thaw's start is compared with: it
// listens on 127.0.0.1, registers, and asks for events, with net/http for all
// three, as a first extension in Go would. It does nothing else.
//
// With VAULT_ADDR it also answers what it is asked for, each time anew: with the
// requests that thaw sends for a first secret, and nothing around them. That is
// the least that net/http lets an extension do.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if err := run(os.Getenv("AWS_LAMBDA_RUNTIME_API"), filepath.Base(os.Args[0]), os.Getenv("LISTEN")); err != nil {
		fmt.Fprintln(os.Stderr, "nothing:", err)
		os.Exit(1)
	}
}

// run registers for INVOKE and SHUTDOWN and asks until SHUTDOWN comes
// (https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html).
func run(api, name, address string) error {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	handler := http.NotFoundHandler()
	if origin := os.Getenv("VAULT_ADDR"); origin != "" {
		handler = forwarder(origin, os.Getenv("THAW_ROLE_ID"), os.Getenv("THAW_SECRET_ID"))
	}
	go http.Serve(ln, handler)
	base := "http://" + api + "/2020-01-01/extension/"
	req, err := http.NewRequest(http.MethodPost, base+"register", bytes.NewReader([]byte(`{"events":["INVOKE","SHUTDOWN"]}`)))
	if err != nil {
		return err
	}
	req.Header.Set("Lambda-Extension-Name", name)
	head, _, err := do(req)
	if err != nil {
		return err
	}
	for {
		req, err := http.NewRequest(http.MethodGet, base+"event/next", nil)
		if err != nil {
			return err
		}
		req.Header.Set("Lambda-Extension-Identifier", head.Get("Lambda-Extension-Identifier"))
		_, body, err := do(req)
		if err != nil {
			return err
		}
		if bytes.Contains(body, []byte(`"SHUTDOWN"`)) {
			return nil
		}
	}
}

// forwarder logs in with an AppRole, asks the origin for its state, and answers
// with what it has at the path.
func forwarder(origin, roleID, secretID string) http.Handler {
	ask := func(method, path, token, body string) ([]byte, error) {
		req, err := http.NewRequest(method, origin+path, strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		if token != "" {
			req.Header.Set("X-Vault-Token", token)
		}
		_, answer, err := do(req)
		return answer, err
	}
	read := func(path string) ([]byte, error) {
		answer, err := ask(http.MethodPost, "/v1/auth/approle/login", "", fmt.Sprintf(`{"role_id":%q,"secret_id":%q}`, roleID, secretID))
		if err != nil {
			return nil, err
		}
		var login struct {
			Auth struct {
				ClientToken string `json:"client_token"`
			} `json:"auth"`
		}
		if err := json.Unmarshal(answer, &login); err != nil {
			return nil, err
		}
		for _, state := range []string{"/v1/sys/leader", "/v1/sys/health"} {
			if answer, err = ask(http.MethodGet, state, "", ""); err != nil {
				return nil, err
			}
			var fields map[string]any
			if err := json.Unmarshal(answer, &fields); err != nil {
				return nil, err
			}
		}
		return ask(http.MethodGet, path, login.Auth.ClientToken, "")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, err := read(r.URL.RequestURI())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(answer)
	})
}

func do(req *http.Request) (http.Header, []byte, error) {
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, body)
	}
	return res.Header, body, err
}
