package config

import (
	"cmp"
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

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
