package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"time"
)

// apartFlag makes this program the stand-in and nothing else.
const apartFlag = "-stand-in"

// where is what the stand-in says of itself on standard output.
type where struct{ Addr, RoleID, SecretID, Root string }

// standInApart serves the stand-in in a process of its own, with the lowest
// priority: it would be on another machine, and a process that waits for its
// turn behind it would be measured instead of thaw.
func standInApart(ctx context.Context) (*origin, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, "nice", "-n", "19", exe, apartFlag)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the stand-in: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the stand-in: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the stand-in: %w", err)
	}
	end := func() {
		in.Close() // it ends with its input
		_ = cmd.Wait()
	}
	var w where
	if err := json.NewDecoder(out).Decode(&w); err != nil {
		end()
		return nil, fmt.Errorf("the stand-in does not say where it serves: %w", err)
	}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{}}
	o := &origin{label: "the stand-in of tests/standin, in a process of the lowest priority", addr: w.Addr, roleID: w.RoleID, secretID: w.SecretID, root: w.Root}
	o.closers = append(o.closers, end, client.CloseIdleConnections)
	o.putBy(client)
	return o, nil
}

// serveApart is the program as the stand-in: it ends with its input.
func serveApart(stdin io.Reader, stdout io.Writer) error {
	o, err := standIn()
	if err != nil {
		return err
	}
	defer o.close()
	if err := json.NewEncoder(stdout).Encode(where{o.addr, o.roleID, o.secretID, o.root}); err != nil {
		return fmt.Errorf("say where the stand-in serves: %w", err)
	}
	_, _ = io.Copy(io.Discard, stdin)
	return nil
}
