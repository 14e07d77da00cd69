// Command go is a function that reads a secret through thaw in each invocation,
// with the client that Go programs have for Vault.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/hashicorp/vault/api"
)

// function is what lives as long as the execution environment.
type function struct{ vault *api.Client }

// Answer is what an invocation returns: nothing secret.
type Answer struct {
	User           string
	PasswordLength int
}

func main() {
	f, err := newFunction("http://127.0.0.1:8200")
	if err != nil {
		panic(err)
	}
	lambda.Start(f.invoke)
}

// Event is what an invocation is given.
type Event struct{ Thaw string }

// invoke is handle, and for the event {"thaw": "status"} what thaw knows: that names
// paths, and no secret. It is off unless the function has the variable.
func (f *function) invoke(ctx context.Context, event Event) (any, error) {
	if event.Thaw != "status" || os.Getenv("SHOW_THAW_STATUS") != "true" {
		return f.handle(ctx)
	}
	response, err := http.Get(f.vault.Address() + "/proxy/v1/status")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	status, err := io.ReadAll(response.Body)
	return json.RawMessage(status), err
}

// newFunction makes a client of the thaw at addr. It needs no token: thaw adds
// its own.
func newFunction(addr string) (*function, error) {
	client, err := api.NewClient(&api.Config{Address: addr})
	if err != nil {
		return nil, err
	}
	client.ClearToken() // VAULT_TOKEN would go first
	return &function{client}, nil
}

// handle is one invocation.
func (f *function) handle(ctx context.Context) (Answer, error) {
	client := f.vault
	if invocation, ok := lambdacontext.FromContext(ctx); ok {
		client = client.WithRequestCallbacks(func(r *api.Request) {
			r.Headers.Set("Lambda-Runtime-Aws-Request-Id", invocation.AwsRequestID)
		})
	}
	secret, err := client.KVv2("secret").Get(ctx, "app")
	if err != nil {
		return Answer{}, fmt.Errorf("read the secret: %w", err)
	}
	user, _ := secret.Data["user"].(string)
	password, _ := secret.Data["password"].(string)
	return Answer{User: user, PasswordLength: len(password)}, nil
}
