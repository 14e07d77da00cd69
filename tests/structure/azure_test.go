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
		"github.com/Azure/azure-sdk-for-go/sdk/azcore",                   // pipeline; see azureUnlinked
		"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys", // unwraps the shared tier's keys
		"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/internal",
		"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob", // keeps backups
		"github.com/Azure/azure-sdk-for-go/sdk/internal",
	}
}

// s3Linked is every module that the programs with the warm-up may link code of
// for the client of S3, which keeps backups.
func s3Linked() []string {
	const sdk = "github.com/aws/aws-sdk-go-v2/"
	return []string{
		sdk + "service/s3", sdk + "service/internal/accept-encoding", sdk + "service/internal/checksum", sdk + "service/internal/presigned-url",
		sdk + "service/internal/s3shared", sdk + "internal/configsources", sdk + "internal/endpoints/v2", sdk + "internal/v4a", sdk + "aws/protocol/eventstream",
	}
}

// azureUnlinked is what thaw-azure must never link: credentials that are not of
// a managed identity's endpoint (see azure.Credential), and AWS beyond the
// signer, which the shared packages need for the aws login and KMS, and S3. It
// warms, unlike the layer's binary.
func azureUnlinked() []string {
	no := slices.DeleteFunc(unlinked(), func(p string) bool {
		return p == "github.com/Azure" || p == module+"/functions/warmup" || p == "github.com/aws/aws-sdk-go-v2/service"
	})
	return append(no,
		"github.com/Azure/azure-sdk-for-go/sdk/azidentity", "github.com/AzureAD", "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager",
		module+"/extension/lambda", module+"/functions/warmup/lambda",
	)
}

func TestThawAzureLinksOnlyWhatItNeeds(t *testing.T) {
	t.Parallel()
	may := slices.Concat(linked(), azureLinked(), s3Linked())
	for _, p := range list(t, "-deps", "./extension/azurefn/thaw-azure") {
		if p.Module != nil && !slices.Contains(may, p.Module.Path) {
			t.Errorf("thaw-azure links %s of module %s: name the module here, if it is worth its size", p.ImportPath, p.Module.Path)
		}
		for _, no := range azureUnlinked() {
			if p.ImportPath == no || strings.HasPrefix(p.ImportPath, no+"/") {
				t.Errorf("thaw-azure links %s", p.ImportPath)
			}
		}
	}
}

// TestTheWarmUpLinksOnlyWhatItNeeds: of AWS's SDK the signer and S3's client.
func TestTheWarmUpLinksOnlyWhatItNeeds(t *testing.T) {
	t.Parallel()
	may := append(slices.Concat(linked(), s3Linked()), "github.com/aws/aws-lambda-go")
	for _, p := range list(t, "-deps", "./functions/warmup/lambda") {
		if p.Module != nil && !slices.Contains(may, p.Module.Path) {
			t.Errorf("the warm-up links %s of module %s: name the module here, if it is worth its size", p.ImportPath, p.Module.Path)
		}
	}
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
