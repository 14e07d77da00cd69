// Command azurehandler is a user's handler for the bench: see
// tests/azure/handler.
package main

import (
	"os"

	"github.com/thaw-project/thaw/tests/azure/handler"
)

func main() {
	os.Exit(handler.Main(append([]string{os.Args[0], handler.Argument}, os.Args[1:]...)))
}
