package config

import "strings"

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
	for i := range len(r) {
		if c := r[i]; c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return len(r) <= 63 && !strings.HasPrefix(r, "-") && !strings.HasSuffix(r, "-")
}
