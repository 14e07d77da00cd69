// Command nothing is the extension that thaw's start is compared with: it
// listens on 127.0.0.1, registers, and asks for events, with net/http for all
// three, as a first extension in Go would. It does nothing else.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
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
	go http.Serve(ln, http.NotFoundHandler())
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
