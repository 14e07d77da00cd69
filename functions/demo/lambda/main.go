// Command lambda runs the sample function on AWS Lambda (runtime
// provided.al2023, handler file "bootstrap").
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/thaw-project/thaw/functions/demo"
)

func main() { os.Exit(run(os.Getenv, os.Stderr)) }

// run serves invocations and does not return unless the configuration is bad.
func run(getenv func(string) string, stderr io.Writer) int {
	f, err := demo.FromEnv(getenv)
	if err != nil {
		fmt.Fprintln(stderr, "demo function:", err)
		return 2
	}
	f.Examine = demo.Doctor(demo.Extension)
	lambda.Start(f.Handle)
	return 0
}
