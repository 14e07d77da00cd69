package config

import (
	"cmp"
	"errors"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Platform is what the process learned of its host from the environment:
// https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
type Platform struct {
	Lambda bool // RuntimeAPI is set
	// Lambda's Extensions API; its presence says that this is Lambda.
	RuntimeAPI string `lambda:"AWS_LAMBDA_RUNTIME_API host:port"`
	// How the environment was started.
	InitType InitType `lambda:"AWS_LAMBDA_INITIALIZATION_TYPE word"`
	// The function's name.
	FunctionName string `lambda:"AWS_LAMBDA_FUNCTION_NAME name"`
	// The function's memory in MB.
	MemoryMB int `lambda:"AWS_LAMBDA_FUNCTION_MEMORY_SIZE whole number from 0 to 65536"` // its extensions' too; 0: not known
	// The function's region.
	Region string `lambda:"AWS_REGION region"` // or AWS_DEFAULT_REGION
	AWS    AWS
	Azure  Azure
}

// AWS is what signing and credentials need of the environment:
// https://docs.aws.amazon.com/sdkref/latest/guide/environment-variables.html
type AWS struct {
	// The function's credentials.
	AccessKeyID string `lambda:"AWS_ACCESS_KEY_ID text"`
	// The function's credentials.
	SecretAccessKey Secret `lambda:"AWS_SECRET_ACCESS_KEY text"`
	// The function's credentials.
	SessionToken Secret `lambda:"AWS_SESSION_TOKEN text"`
	// Where a SnapStart function or a container gets credentials.
	CredentialsURI string `lambda:"AWS_CONTAINER_CREDENTIALS_FULL_URI address"` // or http://169.254.170.2 + AWS_CONTAINER_CREDENTIALS_RELATIVE_URI
	// The Authorization header for that.
	CredentialsAuth Secret `lambda:"AWS_CONTAINER_AUTHORIZATION_TOKEN text"`
	// The same from a file; wins.
	CredentialsFile string `lambda:"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE file"`

	// aws: `regional` signs for the function's own region where `VAULT_STS_ENDPOINT_REGION` is unset.
	RegionalSTS bool `env:"AWS_STS_REGIONAL_ENDPOINTS legacy or regional"`
	// aws: use the FIPS endpoints of STS and KMS.
	UseFIPS bool `env:"AWS_USE_FIPS_ENDPOINT"`
	// aws: STS's address, if not AWS's own.
	EndpointSTS string `env:"AWS_ENDPOINT_URL_STS address"` // else AWS_ENDPOINT_URL
	// aws: KMS's address, if not AWS's own.
	EndpointKMS string `env:"AWS_ENDPOINT_URL_KMS address"` // else AWS_ENDPOINT_URL
	// aws: the address of every service.
	Endpoint string `env:"AWS_ENDPOINT_URL address"` // of every other service; empty: AWS's own
}

// InitType says how Lambda started the environment.
type InitType string

// Initialization types, as AWS documents AWS_LAMBDA_INITIALIZATION_TYPE.
const (
	InitOnDemand    InitType = "on-demand"
	InitProvisioned InitType = "provisioned-concurrency"
	InitSnapStart   InitType = "snap-start"
	InitManaged     InitType = "lambda-managed-instances"
)

// resolvePlatform puts together what has several names in AWS's variables.
func (l *loader) resolvePlatform() {
	p := &l.d.Platform
	p.Lambda = p.RuntimeAPI != ""
	if p.Lambda && p.InitType == "" {
		p.InitType = InitOnDemand
	}
	p.Region = cmp.Or(p.Region, l.d.DefaultRegion)
	a := &p.AWS
	if l.d.IgnoreEndpoints {
		a.EndpointSTS, a.EndpointKMS, a.Endpoint = "", "", ""
	}
	check := func(name, v string) {
		addr, _, err := parseOrigin(v)
		bad := v != "" && l.good("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") && (err != nil || strings.HasPrefix(addr, "unix:"))
		l.check(place{Name: name}, v, errIf(bad, "not an http or https address; correct or remove it"))
	}
	check("AWS_ENDPOINT_URL_STS", a.EndpointSTS)
	check("AWS_ENDPOINT_URL_KMS", a.EndpointKMS)
	if a.EndpointSTS == "" || a.EndpointKMS == "" {
		check("AWS_ENDPOINT_URL", a.Endpoint)
	}
	a.EndpointSTS, a.EndpointKMS = cmp.Or(a.EndpointSTS, a.Endpoint), cmp.Or(a.EndpointKMS, a.Endpoint)
	// https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
	const relative = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
	if rel := l.value(relative); rel != "" {
		l.check(place{Name: relative}, rel, errIf(!strings.HasPrefix(rel, "/"), `must start with "/"`))
		a.CredentialsURI = "http://169.254.170.2" + rel
	} else if a.CredentialsURI != "" {
		_, err := CredentialsURL(a.CredentialsURI)
		l.check(place{Name: "AWS_CONTAINER_CREDENTIALS_FULL_URI"}, a.CredentialsURI, err)
	}
}

// checkRegion refuses what cannot be a region: it becomes part of a host name.
func checkRegion(v string) error { return errIf(v == "" || !IsRegion(v), "not a region") }

// checkRoleARN wants arn:partition:iam::account:role/path/name.
func checkRoleARN(v string) error {
	arn := regexp.MustCompile(`^arn:[^:]*:iam:[^:]*:[^:]*:role/.`)
	return errIf(!arn.MatchString(v) || checkLine(v) != nil, "not the ARN of a role")
}

// Partition is a separate AWS with its own accounts and domain.
type Partition struct{ Name, Domain string }

// PartitionOf tells a region's partition by its prefix, as partitions.json of
// the AWS SDKs does.
func PartitionOf(region string) Partition {
	for _, p := range [...]struct {
		prefix string
		Partition
	}{
		{"us-gov-", Partition{"aws-us-gov", "amazonaws.com"}},
		{"cn-", Partition{"aws-cn", "amazonaws.com.cn"}},
		{"us-iso-", Partition{"aws-iso", "c2s.ic.gov"}},
		{"us-isob-", Partition{"aws-iso-b", "sc2s.sgov.gov"}},
		{"eu-isoe-", Partition{"aws-iso-e", "cloud.adc-e.uk"}},
		{"us-isof-", Partition{"aws-iso-f", "csp.hci.ic.gov"}},
		{"eusc-", Partition{"aws-eusc", "amazonaws.eu"}},
	} {
		if strings.HasPrefix(region, p.prefix) {
			return p.Partition
		}
	}
	return Partition{"aws", "amazonaws.com"}
}

// IsRegion reports whether a region can go into a host name; "" can.
func IsRegion(r string) bool {
	return len(r) <= 63 && madeOf(r, "-") && r == strings.ToLower(r) && r == strings.Trim(r, "-")
}

// CredentialsURL reads the address of a container's credentials endpoint, which gets our
// authorization token, by the rule of AWS's SDKs: by http only this host and the fixed
// addresses of ECS and EKS
// (https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html).
// Names other than localhost are refused, since a resolver could point them anywhere.
func CredentialsURL(v string) (*url.URL, error) {
	u, err := url.Parse(v)
	if err == nil && u.Host != "" && u.User == nil {
		addr, _ := netip.ParseAddr(u.Hostname())
		addr = addr.Unmap()
		here := u.Hostname() == "localhost" || addr.Zone() == "" && addr.IsLoopback()
		if u.Scheme == "https" || u.Scheme == "http" && (here || slices.Contains([]string{"169.254.170.2", "169.254.170.23", "fd00:ec2::23"}, addr.String())) {
			return u, nil
		}
	}
	return nil, errors.New("must be https, or http to loopback, 169.254.170.2, 169.254.170.23 or fd00:ec2::23, as for AWS's SDKs")
}

// ServiceURL reads the address that a variable gives a service of AWS.
func ServiceURL(variable, v string) (*url.URL, error) {
	u, err := url.Parse(v)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New(variable + " is not an http or https URL of a host: give it as https://host")
	}
	u.Path = cmp.Or(u.Path, "/")
	return u, nil
}
