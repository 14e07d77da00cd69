package config_test

import (
	"testing"

	"github.com/thaw-project/thaw/extension/config"
)

// lambdaEnviron is what a function with a usual configuration has.
func lambdaEnviron() []string {
	return []string{
		"AWS_LAMBDA_RUNTIME_API=127.0.0.1:9001", "AWS_LAMBDA_FUNCTION_NAME=orders", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=512",
		"AWS_LAMBDA_FUNCTION_VERSION=$LATEST", "AWS_LAMBDA_INITIALIZATION_TYPE=on-demand", "AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/orders",
		"AWS_LAMBDA_LOG_STREAM_NAME=2024/01/01/[$LATEST]0123", "AWS_REGION=eu-west-1", "AWS_DEFAULT_REGION=eu-west-1",
		"AWS_ACCESS_KEY_ID=ASIAEXAMPLE", "AWS_SECRET_ACCESS_KEY=examplekey", "AWS_SESSION_TOKEN=exampletoken",
		"AWS_XRAY_CONTEXT_MISSING=LOG_ERROR", "AWS_XRAY_DAEMON_ADDRESS=169.254.79.129:2000", "LANG=en_US.UTF-8", "LD_LIBRARY_PATH=/lib64",
		"PATH=/usr/local/bin:/usr/bin", "TZ=:UTC", "LAMBDA_TASK_ROOT=/var/task", "LAMBDA_RUNTIME_DIR=/var/runtime",
		"VLE_VAULT_ADDR=https://vault.example.com:8200", "VAULT_ADDR=http://127.0.0.1:8200", "VAULT_AUTH_PROVIDER=aws", "VAULT_AUTH_ROLE=orders",
		"VAULT_NAMESPACE=team", "VAULT_SECRET_PATH_DB=secret/data/db", "VAULT_SECRET_FILE_DB=db.json", "THAW_MAX_AGE=5s", "VAULT_LOG_LEVEL=INFO",
		"TABLE=orders", "STAGE=prod", "POWERTOOLS_SERVICE_NAME=orders",
	}
}

func BenchmarkLoad(b *testing.B) {
	environ := lambdaEnviron()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := config.Load(config.Source{Environ: environ}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoadFile(b *testing.B) {
	environ := []string{"THAW_CONFIG=/thaw.hcl"}
	b.ReportAllocs()
	for b.Loop() {
		src := config.Source{Environ: environ, ReadFile: func(string) ([]byte, error) { return []byte(proxyFile), nil }}
		if _, _, err := config.Load(src); err != nil {
			b.Fatal(err)
		}
	}
}
