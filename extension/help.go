package main

import (
	"fmt"
	"io"
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

const helpDoctor = `thaw doctor [-config FILE] [-json] [-allow-unchecked] [-no-login] [-timeout TIME] [PATH ...]

Run it with the environment of the function. It checks each step of a request:
settings, names, connections, TLS, clocks, Vault's nodes, the login, policies,
the secrets that the settings and the command line name, what polls cost, and
the shared cache. For each problem it says what is wrong, why that matters and
what to do. It writes nothing to Vault but a login.

  -config FILE   configuration file of Vault Proxy; wins over THAW_CONFIG
  -json          one document: healthy, problems, advice, findings
  -no-login      do not log in: for a secret id whose uses are counted
  -timeout TIME  longest time for everything, 30s by default
  PATH           secrets that the function reads, such as secret/data/app

The exit status is 0 if all is well, 1 if there are problems, 2 for a wrong
command line or configuration, and 3 if there are no problems but something
was not checked (0 with -allow-unchecked).
`

const helpStatus = `thaw status [-config FILE] [-addr ADDRESS] [-json]

Asks a running thaw what it knows of Vault's nodes, its token and its cache.
Run it with the same environment, or give the address of its listener.
`

// help prints what there is to know, in general or of a command.
func help(commands []string, stdout, stderr io.Writer) int {
	if len(commands) == 0 {
		fmt.Fprintf(stdout, usage, version)
		return exitOK
	}
	text, ok := map[string]string{"proxy": helpProxy, "doctor": helpDoctor, "status": helpStatus}[commands[0]]
	if !ok {
		fmt.Fprintf(stderr, "thaw: no help on %q\n\n", commands[0])
		fmt.Fprintf(stderr, usage, version)
		return exitUsage
	}
	fmt.Fprint(stdout, text)
	return exitOK
}
