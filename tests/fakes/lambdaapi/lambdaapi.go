// Package lambdaapi is a stand-in for AWS Lambda as an external extension sees
// it: the Extensions API on 127.0.0.1, and what Lambda does to the processes of
// an execution environment. It is strict. A call that Lambda would refuse is
// refused the same way, and is also recorded as a violation, as is a call that
// Lambda lets pass but documents as wrong.
//
// API is the HTTP side alone; Environment adds a real process. One process is
// one Extension of the API, with the states of an external agent in AWS's
// Runtime Interface Emulator (RIE):
//
//	started --register--> registered --Next--> ready --event--> running --Next--> ready ...
//	registered --init/error--> init-error
//	registered, ready, running --exit/error--> exit-error
//
// All else is 403 with an errorType. The life of an environment is
//
//	Start: exec, register, [function's init], first Next        Init phase
//	Invoke: thaw, INVOKE to the extension, function, Next       Invoke phase, any number
//	Freeze, Thaw                                                between phases
//	Shutdown: SHUTDOWN event, 2s, SIGKILL                       Shutdown phase
//
// A function that times out or crashes is followed by a Shutdown phase and a new
// Init phase with a new process.
//
// Sources: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html ("the
// docs" below), https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html,
// https://github.com/aws/aws-lambda-runtime-interface-emulator (lambda/rapi, lambda/core,
// internal/lambda-managed-instances). It is a test double: what Lambda's own
// servers do beyond these texts is not in it.
package lambdaapi

import (
	"context"
	"fmt"
	"io"
	"time"
)

// Values of AWS_LAMBDA_INITIALIZATION_TYPE
// (https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html).
const (
	OnDemand    = "on-demand"
	Provisioned = "provisioned-concurrency"
	SnapStart   = "snap-start"
	Managed     = "lambda-managed-instances"
)

// The lifecycle events.
const (
	eventInvoke   = "INVOKE"
	eventShutdown = "SHUTDOWN"
)

// Shutdown phase: 2s for the runtime and all external extensions together, then
// SIGKILL (the docs, "Shutdown phase").
const shutdownTime = 2 * time.Second

// Function is what the environment says of its function. Empty fields get
// plausible values.
type Function struct {
	InitType string // default OnDemand
	Name     string // default "fn"
	Version  string // default "$LATEST"
	Handler  string // default "index.handler"
	Account  string // default "123456789012"
	Region   string // default "eu-central-1"
}

func (f Function) filled() Function {
	fill := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	fill(&f.InitType, OnDemand)
	fill(&f.Name, "fn")
	fill(&f.Version, "$LATEST")
	fill(&f.Handler, "index.handler")
	fill(&f.Account, "123456789012")
	fill(&f.Region, "eu-central-1")
	return f
}

func (f Function) arn() string {
	return fmt.Sprintf("arn:aws:lambda:%s:%s:function:%s", f.Region, f.Account, f.Name)
}

// Config of an Environment.
type Config struct {
	// Binary is the extension's file. Lambda starts what lies in /opt/extensions
	// and knows each process by its file's name.
	Binary string
	// Env is added to what Lambda sets. Nothing of this process's own
	// environment is passed on.
	Env []string

	Function    Function
	InitTimeout time.Duration // default 10s (lambda-runtime-environment, "Init phase")
	Timeout     time.Duration // the function's timeout; default 30s (Lambda's is 3s; a busy test machine needs more)

	// Init is the function's own code outside its handler. The runtime starts
	// once every extension has registered. nil: nothing.
	Init func(ctx context.Context) error

	Stdout io.Writer // of the extension; nil: discarded
	Stderr io.Writer // of the extension; nil: discarded
}

// Invocation is what the runtime is told of one invocation.
type Invocation struct {
	RequestID string
	Deadline  time.Time
	ARN       string
	TraceID   string
}
