// Command thaw-dev is thaw without Vault, for laptops, `sam local` and a
// function's own tests:
//
//	thaw-dev secrets.json
//
// The real proxy serves secrets from a file or a folder (secrets.go), in front
// of a stand-in for Vault inside this process (tests/standin). An edit of the
// file is a rotation. Whatever a function may meet can be had on purpose: an
// origin that is slow, that fails some requests, or that is down (trouble.go).
//
// A new Lambda-Runtime-Aws-Request-Id begins an invocation, as INVOKE does in
// Lambda, and so does POST /dev/invoke (front.go). It listens on loopback
// addresses only, and refuses to start in Lambda.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// settings are the command line.
type settings struct {
	source string        // file or folder with the secrets
	listen string        // a loopback address
	token  string        // the one that is taken; empty: any
	fail   float64       // share of the origin's answers that are failures, from 0 to 1
	seed   uint64        // of those failures
	delay  time.Duration // before each of the origin's answers
	down   bool          // the origin is down from the beginning
}

const usage = `Usage: thaw-dev [options] SECRETS

SECRETS is a JSON or YAML file, or a folder of such files. In a file each key is a path of Vault's API and each value a
secret: {"secret/data/app": {"password": "one"}, "kv/old": {"key": "two"}}. With /data/ it is KV version 2, without
version 1. In a folder the file secret/data/app.json has the secret itself. An edit is a rotation.

`

// run is the program; it returns the exit status: 0 after SIGTERM or Ctrl-C,
// 1 where it could not serve, 2 for a wrong command line or wrong secrets.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	var s settings
	fs := flag.NewFlagSet("thaw-dev", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), usage)
		fs.PrintDefaults()
	}
	fs.StringVar(&s.listen, "listen", "127.0.0.1:8200", "loopback `address` to serve on; port 0 takes a free one")
	fs.StringVar(&s.token, "token", "", "the one `token` that callers may send; any is taken by default")
	fs.Func("fail", "`share` of Vault's answers that are failures, such as 30%", func(v string) (err error) {
		s.fail, err = parseShare(v)
		return err
	})
	fs.Uint64Var(&s.seed, "seed", 1, "`number` that fixes which answers fail")
	fs.Func("delay", "`time` before each of Vault's answers, such as 20ms", func(v string) (err error) {
		if s.delay, err = time.ParseDuration(v); err != nil || s.delay < 0 || s.delay > time.Minute {
			return errors.New("want a time from 0s to 1m, such as 20ms")
		}
		return nil
	})
	fs.BoolVar(&s.down, "down", false, "begin with Vault down; SIGUSR1, POST /dev/down and /dev/up change that")
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	problems := checkSettings(&s, fs.Args(), environ)
	var first secrets
	if len(problems) == 0 {
		var err error
		if first, err = readSecrets(s.source); err == nil && len(first) == 0 {
			err = noSecrets(s.source)
		}
		if err != nil {
			problems = append(problems, err)
		}
	}
	if len(problems) > 0 {
		fmt.Fprintf(stderr, "thaw-dev: %v\n", errors.Join(problems...))
		return 2
	}
	if err := serve(ctx, s, first, environ, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "thaw-dev: %v\n", err)
		return 1
	}
	return 0
}

// checkSettings names all that is wrong with the command line.
func checkSettings(s *settings, args, environ []string) (problems []error) {
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		if name == "AWS_LAMBDA_RUNTIME_API" || name == "FUNCTIONS_CUSTOMHANDLER_PORT" {
			problems = append(problems, fmt.Errorf("%s is set: this is a function's environment, and thaw-dev serves made-up secrets; use the layer of thaw", name))
		}
	}
	switch len(args) {
	case 0:
		problems = append(problems, errors.New("name one file or folder with secrets; thaw-dev -help lists the options"))
	case 1:
		s.source = args[0]
	default:
		problems = append(problems, fmt.Errorf("name one file or folder with secrets, not %q too; options stand before it", args[1]))
	}
	host, port, err := net.SplitHostPort(s.listen)
	addr, bad := netip.ParseAddr(cmp.Or(strings.ReplaceAll(host, "localhost", "127.0.0.1"), "0.0.0.0"))
	if _, e := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || e != nil || !addr.IsLoopback() {
		problems = append(problems, fmt.Errorf("-listen %s: want a loopback address with a port, such as 127.0.0.1:8200", s.listen))
	}
	return problems
}

// parseShare reads 30% or 0.3.
func parseShare(v string) (float64, error) {
	number, percent := strings.CutSuffix(strings.TrimSpace(v), "%")
	f, err := strconv.ParseFloat(number, 64)
	if percent {
		f /= 100
	}
	if err != nil || !(f >= 0 && f <= 1) {
		return 0, errors.New("want a share from 0% to 100%, such as 30%")
	}
	return f, nil
}
