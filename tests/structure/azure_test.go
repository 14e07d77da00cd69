package structure

import (
	"slices"
	"strings"
	"testing"
)

// azureLinked is every module that thaw-azure may link code of, besides what
// the Lambda binary may.
func azureLinked() []string {
	return []string{
		"github.com/Azure/azure-sdk-for-go/sdk/azcore", // pipeline, token policy; see azureUnlinked
		"github.com/Azure/azure-sdk-for-go/sdk/internal",
	}
}

// azureUnlinked is what thaw-azure must never link: clients that are heavy for
// the two calls of theirs that it makes, and AWS beyond the signer, which the
// shared packages need for the aws login, KMS and S3.
func azureUnlinked() []string {
	no := slices.DeleteFunc(unlinked(), func(p string) bool { return p == "github.com/Azure" || p == module+"/functions" })
	return append(no,
		"github.com/Azure/azure-sdk-for-go/sdk/azidentity", "github.com/AzureAD", "github.com/Azure/azure-sdk-for-go/sdk/storage",
		"github.com/Azure/azure-sdk-for-go/sdk/security", "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager",
		module+"/extension/lambda", module+"/functions/warmup/lambda", module+"/functions/demo",
	)
}

func TestThawAzureLinksOnlyWhatItNeeds(t *testing.T) {
	t.Parallel()
	may := append(linked(), azureLinked()...)
	for _, p := range list(t, "-deps", "./extension/azurefn/thaw-azure") {
		if p.Module != nil && !slices.Contains(may, p.Module.Path) {
			t.Errorf("thaw-azure links %s of module %s: name the module here, if it is worth its size", p.ImportPath, p.Module.Path)
		}
		for _, no := range azureUnlinked() {
			if p.ImportPath == no || strings.HasPrefix(p.ImportPath, no+"/") {
				t.Errorf("thaw-azure links %s", p.ImportPath)
			}
		}
		if rest, ok := strings.CutPrefix(p.ImportPath, "github.com/aws/"); ok && !awsSigner(rest) {
			t.Errorf("thaw-azure links %s, which is more of AWS than the signer needs", p.ImportPath)
		}
	}
}

// awsSigner reports whether a package of AWS's is part of the signer.
func awsSigner(p string) bool {
	return strings.HasPrefix(p, "smithy-go") || p == "aws-sdk-go-v2/aws" || strings.HasPrefix(p, "aws-sdk-go-v2/aws/") || strings.HasPrefix(p, "aws-sdk-go-v2/internal/")
}

// TestOtherProgramsLinkNothingOfAzures covers the Lambda binary besides its own
// test, and the warm-up's.
func TestOtherProgramsLinkNothingOfAzures(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, "-deps", "./extension", "./functions/warmup/lambda", "./functions/demo/lambda") {
		if strings.HasPrefix(strings.ToLower(p.ImportPath), "github.com/azure") || p.ImportPath == module+"/extension/azure" {
			t.Errorf("it links %s", p.ImportPath)
		}
	}
}
