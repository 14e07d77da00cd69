package config

import "strings"

// Partition is a separate AWS with its own accounts and domain.
type Partition struct{ Name, Domain string }

// PartitionOf tells a region's partition by its prefix, as partitions.json of
// the AWS SDKs does.
func PartitionOf(region string) Partition {
	switch prefix := func(p string) bool { return strings.HasPrefix(region, p) }; {
	case prefix("us-gov-"):
		return Partition{"aws-us-gov", "amazonaws.com"}
	case prefix("cn-"):
		return Partition{"aws-cn", "amazonaws.com.cn"}
	case prefix("us-iso-"):
		return Partition{"aws-iso", "c2s.ic.gov"}
	case prefix("us-isob-"):
		return Partition{"aws-iso-b", "sc2s.sgov.gov"}
	case prefix("eu-isoe-"):
		return Partition{"aws-iso-e", "cloud.adc-e.uk"}
	case prefix("us-isof-"):
		return Partition{"aws-iso-f", "csp.hci.ic.gov"}
	case prefix("eusc-"):
		return Partition{"aws-eusc", "amazonaws.eu"}
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
