package main

import (
	"context"
	"fmt"
	"io"
	"slices"
)

const usage = `thaw %s: a secrets cache for functions that freeze

  thaw                      in AWS Lambda: the extension
  thaw proxy [-config F]    anywhere: the caching proxy, until SIGTERM
  thaw doctor [-json]       anywhere: says what keeps it from working, and what to do
  thaw status [-json]       what a running thaw knows of Vault's nodes, its token and its cache
  thaw help COMMAND         more on proxy, doctor or status
  thaw version

Settings come from the environment (VAULT_ADDR, VAULT_AUTH_ROLE, ...) and from
a file in Vault Proxy's HCL (-config, THAW_CONFIG). docs/settings.md lists them.
`

const helpProxy = `thaw proxy [-config FILE]

Serves Vault's API on 127.0.0.1:8200 (THAW_LISTEN), and answers reads of KV
secrets from memory. Vault's address is VAULT_ADDR. A request without a token
gets thaw's own: VAULT_TOKEN, or a login (THAW_AUTH_METHOD).

  -config FILE   configuration file of Vault Proxy, HCL or JSON. Variables win over it

Nothing tells an ordinary process of invocations, so a cached secret is at most
THAW_RECHECK (1s) old. SIGTERM and SIGINT end it. The exit status is 2 for a
wrong command line or configuration, and 1 if it cannot go on.

  VAULT_ADDR=https://vault.example.com:8200 VAULT_TOKEN=... thaw proxy
`

// help prints what there is to know, in general or of a command. A command tells
// it itself.
func help(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) < 3 {
		fmt.Fprintf(stdout, usage, version)
		return exitOK
	}
	if !slices.Contains([]string{"proxy", "doctor", "status"}, args[2]) {
		fmt.Fprintf(stderr, "thaw: no help on %q\n\n", args[2])
		fmt.Fprintf(stderr, usage, version)
		return exitUsage
	}
	return run(ctx, []string{args[0], args[2], "-help"}, nil, stdout, stdout)
}
