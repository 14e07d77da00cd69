package docs

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// TestTheLayersCommandsAreWhatAWSTakes runs the blocks that publish the layer
// and add it to a function, with the real AWS CLI, against moto.
func TestTheLayersCommandsAreWhatAWSTakes(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs the AWS CLI")
	}
	if _, err := exec.LookPath("aws"); err != nil {
		t.Skip("NOT TESTED: no AWS CLI")
	}
	ran := 0
	for _, p := range manual(t) {
		for _, b := range p.blocks {
			if !strings.Contains(b.text, "publish-layer-version") {
				continue
			}
			ran++
			t.Run(filepath.Base(p.name), func(t *testing.T) {
				t.Parallel()
				a := newAccount(t)
				a.run("aws iam create-role --role-name my-function --assume-role-policy-document '{}'")
				a.run("aws lambda create-function --function-name my-function --runtime python3.13 --handler app.handler" +
					" --role arn:aws:iam::123456789012:role/my-function --zip-file fileb://dist/thaw-layer-arm64.zip")
				a.run(b.text)
				var got struct {
					Layers      []struct{ Arn string }
					Environment struct{ Variables map[string]string }
				}
				if err := json.Unmarshal(a.run("aws lambda get-function-configuration --function-name my-function --output json"), &got); err != nil {
					t.Fatal(err)
				}
				if len(got.Layers) != 1 || !strings.HasSuffix(got.Layers[0].Arn, ":layer:thaw:1") {
					t.Errorf("layers: %+v", got.Layers)
				}
				if v := got.Environment.Variables; v["VAULT_AUTH_ROLE"] != "my-function" || v["VAULT_ADDR"] == "" {
					t.Errorf("variables: %v", v)
				}
			})
		}
	}
	if ran == 0 {
		t.Error("no page publishes the layer")
	}
}

// account is an AWS account in moto, and a folder with a layer's zip.
type account struct {
	t    *testing.T
	moto *harness.Moto
	dir  string
}

func newAccount(t *testing.T) *account {
	t.Helper()
	a := &account{t: t, moto: harness.AWS(t), dir: t.TempDir()}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create("extensions/thaw")
	if err == nil {
		_, err = w.Write([]byte("stands for the binary"))
	}
	if err == nil {
		err = z.Close()
	}
	if err == nil {
		err = os.Mkdir(filepath.Join(a.dir, "dist"), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(a.dir, "dist", "thaw-layer-arm64.zip"), b.Bytes(), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *account) run(script string) []byte {
	a.t.Helper()
	cmd := exec.CommandContext(a.t.Context(), "bash", "-euc", script)
	cmd.Dir = a.dir
	cmd.Env = append(harness.FromEnv().All, "AWS_ENDPOINT_URL="+a.moto.Addr(), "AWS_ACCESS_KEY_ID="+a.moto.Admin.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+a.moto.Admin.SecretAccessKey,
		"AWS_REGION=eu-central-1", "AWS_DEFAULT_REGION=eu-central-1", "AWS_PAGER=", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		a.t.Fatalf("%v\n%s%s", err, out, stderr.String())
	}
	return out
}
