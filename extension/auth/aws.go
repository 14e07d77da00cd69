package auth

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"github.com/thaw-project/thaw/extension/config"
)

// serverIDHeader binds a signed request to one Vault
// (https://developer.hashicorp.com/vault/docs/auth/aws#iam-auth-method).
const serverIDHeader = "X-Vault-AWS-IAM-Server-ID"

// callerIdentity is the body of the request that Vault sends to STS for us.
const callerIdentity = "Action=GetCallerIdentity&Version=2011-06-15"

// awsIAM logs in by handing Vault a signed sts:GetCallerIdentity request, which
// Vault sends to STS to learn who signed it
// (https://developer.hashicorp.com/vault/api-docs/auth/aws#login). No client of
// STS makes a request that is signed and not sent.
type awsIAM struct {
	*awsSource
	sts stsEndpoint // that Vault asks
}

func newAWS(o Options) (method, error) {
	e, err := newSTSEndpoint(o)
	if err != nil {
		return method{}, err
	}
	source, err := newAWSSource(o)
	a := awsIAM{source, e}
	return method{credentials: a.credentials, advice: a.advice}, err
}

func (a awsIAM) credentials(ctx context.Context) (credentials, error) {
	keys, err := a.keys(ctx)
	if err != nil {
		return credentials{}, err
	}
	header := http.Header{}
	if id := a.o.Auth.ServerID; id != "" {
		header.Set(serverIDHeader, id)
	}
	req, err := a.signedForm(ctx, a.sts, keys, callerIdentity, header)
	if err != nil {
		return credentials{}, err
	}
	headers, _ := json.Marshal(req.Header) // which nothing in a header can fail
	encode := base64.StdEncoding.EncodeToString
	fields := map[string]string{
		"iam_http_request_method": http.MethodPost,
		"iam_request_url":         encode([]byte(a.sts.url.String())),
		"iam_request_body":        encode([]byte(callerIdentity)),
		"iam_request_headers":     encode(headers),
	}
	_, signature, _ := strings.Cut(req.Header.Get("Authorization"), "Signature=")
	return credentials{fields: fields, secrets: append(secretsOf(keys), signature), id: secretsOf(keys)}, nil
}

// signedForm makes a signed POST of a form to STS.
func (s *awsSource) signedForm(ctx context.Context, e stsEndpoint, keys sdk.Credentials, form string, header http.Header) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url.String(), strings.NewReader(form))
	if err != nil {
		return nil, fmt.Errorf("make the request to STS: %w", err)
	}
	maps.Copy(req.Header, header)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	sum := sha256.Sum256([]byte(form))
	if err := s.signer.SignHTTP(ctx, keys, req, hex.EncodeToString(sum[:]), "sts", e.region, s.o.Now()); err != nil {
		return nil, fmt.Errorf("sign the request to STS: %w", err)
	}
	return req, nil
}

// advice says what to check for the refusals of Vault's aws method.
func (a awsIAM) advice(has func(...string) bool) string {
	switch {
	case has(serverIDHeader):
		return "VAULT_IAM_SERVER_ID must be the mount's iam_server_id_header_value"
	case has("ExpiredToken", "InvalidClientTokenId", "UnrecognizedClientException"):
		return "STS does not accept the AWS credentials of this function"
	case has("Signature expired", "not yet current"):
		return "the clock of this host is wrong"
	case has("signature we calculated does not match"):
		return "the AWS credentials of this function are not a pair, or the mount's sts_endpoint is not " + a.sts.url.Host
	case has("from STS"):
		return "signed for " + a.sts.url.Host + ", region " + a.sts.region + ": VAULT_STS_ENDPOINT_REGION must be the region of the mount's sts_region and sts_endpoint"
	case has("body of GetCallerIdentity is invalid", "error making upstream request"):
		return "Vault could not ask STS: check the mount's sts_endpoint and that Vault reaches it"
	case has("does not belong to the role"):
		return "the role's bound_iam_principal_arn must name this function's execution role, or that of VAULT_ASSUMED_ROLE_ARN"
	case has("error looking up full ARN", "unable to fetch client"):
		return "Vault's own AWS credentials lack iam:GetRole or iam:GetUser: grant it, or bind the exact ARN with resolve_aws_unique_ids=false"
	case has("entry for role", "auth method iam not allowed"):
		return "check VAULT_AUTH_ROLE: it must be a role of auth_type iam on this mount"
	case has("invalid request header"):
		return "the mount's allowed_sts_header_values lack a header that is signed"
	}
	return ""
}

// stsEndpoint is where a GetCallerIdentity request is addressed, and the region
// it is signed for.
type stsEndpoint struct {
	url    *url.URL
	region string
}

// newSTSEndpoint follows Vault's expectation: without configuration the global
// endpoint and us-east-1, else the regional one. Only partition aws has a
// global endpoint; elsewhere it is the region that the process runs in
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_region-endpoints.html).
func newSTSEndpoint(o Options) (stsEndpoint, error) {
	region := o.Auth.STSRegion
	for _, r := range []string{region, o.Platform.Region} {
		if !config.IsRegion(r) {
			return stsEndpoint{}, fmt.Errorf("AWS region %q is not a region's name: check VAULT_STS_ENDPOINT_REGION and AWS_REGION", r)
		}
	}
	own := o.Platform.AWS.RegionalSTS || o.Platform.AWS.UseFIPS || o.Platform.AWS.EndpointSTS != "" || config.PartitionOf(o.Platform.Region).Name != "aws"
	if region == "" && own {
		region = o.Platform.Region
	}
	if e := o.Platform.AWS.EndpointSTS; e != "" {
		u, err := config.ServiceURL("AWS_ENDPOINT_URL_STS", e)
		if err != nil {
			return stsEndpoint{}, err
		}
		if region == "" || strings.EqualFold(u.Hostname(), globalSTS) && o.Auth.STSRegion == "" {
			region = globalRegion
		}
		return stsEndpoint{url: u, region: region}, nil
	}
	host := globalSTS
	if region != "" || o.Platform.AWS.UseFIPS {
		host = stsHost(cmp.Or(region, globalRegion), o.Platform.AWS.UseFIPS)
	}
	return stsEndpoint{url: &url.URL{Scheme: "https", Host: host, Path: "/"}, region: cmp.Or(region, globalRegion)}, nil
}

const (
	globalSTS    = "sts.amazonaws.com"
	globalRegion = "us-east-1"
)

// stsHost is the regional endpoint. GovCloud's is a FIPS endpoint by its plain
// name (https://aws.amazon.com/compliance/fips/).
func stsHost(region string, fips bool) string {
	p := config.PartitionOf(region)
	if fips && p.Name != "aws-us-gov" {
		return "sts-fips." + region + "." + p.Domain
	}
	return "sts." + region + "." + p.Domain
}
