package ship

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// needed is every permission that the SAM template and the Terraform module
// give, and the call that needs it. One that is not here must not be given.
func needed() map[string]string {
	const (
		network = "Lambda itself, to attach a function to its subnets (https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html)"
		admin   = "administrators of the account, to manage the key with CloudFormation or Terraform, and to delete it"
	)
	return map[string]string{
		"logs:CreateLogStream":  "Lambda itself: an instance's first line",
		"logs:PutLogEvents":     "Lambda itself: every line of a function and of the extension",
		"kms:Decrypt":           "extension/kms: Decrypt, for THAW_CACHE_KEY_KMS",
		"sts:AssumeRole":        "extension/auth: AssumeRole, for VAULT_ASSUMED_ROLE_ARN; and lambda.amazonaws.com, to run as the role",
		"s3:GetObject":          "functions/warmup: S3.Read, to restore THAW_DUMP",
		"s3:PutObject":          "functions/warmup: S3.Write, every PROACTIVE_CACHE_DUMP_INTERVAL",
		"s3:ListBucket":         "functions/warmup: S3.Read; without it S3 answers 403 where there is no backup yet, and not 404",
		"lambda:InvokeFunction": "EventBridge's schedule, to run the warm-up",

		"ec2:CreateNetworkInterface": network, "ec2:DeleteNetworkInterface": network, "ec2:DescribeNetworkInterfaces": network, "ec2:DescribeSubnets": network,
		"ec2:AssignPrivateIpAddresses": network, "ec2:UnassignPrivateIpAddresses": network,

		"kms:GenerateDataKeyWithoutPlaintext": "the command of the output MakeCacheKey",

		"kms:CancelKeyDeletion": admin, "kms:CreateAlias": admin, "kms:DeleteAlias": admin, "kms:DescribeKey": admin, "kms:DisableKey": admin,
		"kms:DisableKeyRotation": admin, "kms:EnableKey": admin, "kms:EnableKeyRotation": admin, "kms:GetKeyPolicy": admin, "kms:GetKeyRotationStatus": admin,
		"kms:ListKeyPolicies": admin, "kms:ListResourceTags": admin, "kms:PutKeyPolicy": admin, "kms:ScheduleKeyDeletion": admin, "kms:TagResource": admin,
		"kms:UntagResource": admin, "kms:UpdateKeyDescription": admin,
	}
}

// noResources are actions that IAM does not scope
// (https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html).
func noResources() []string { return []string{"ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"} }

// statement is one of a policy, with lists where AWS takes a word as well.
type statement struct {
	Sid, Effect          string
	Action, Resource     []string
	Principal, Condition map[string]any
}

func list(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var out []string
		for _, one := range v {
			out = append(out, list(one)...)
		}
		return out
	case nil:
		return nil
	}
	return []string{fmt.Sprint(v)}
}

// statements reads a policy, as text or as it is in a template.
func statements(t *testing.T, policy any) []statement {
	t.Helper()
	if text, ok := policy.(string); ok {
		policy = nil
		if err := json.Unmarshal([]byte(text), &policy); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
	}
	var out []statement
	for _, one := range policy.(map[string]any)["Statement"].([]any) {
		s := one.(map[string]any)
		if s["NotAction"] != nil || s["NotResource"] != nil || s["NotPrincipal"] != nil {
			t.Errorf("a policy says what it does not mean: %v", s)
		}
		principal, _ := s["Principal"].(map[string]any)
		condition, _ := s["Condition"].(map[string]any)
		sid, _ := s["Sid"].(string)
		out = append(out, statement{sid, s["Effect"].(string), list(s["Action"]), list(s["Resource"]), principal, condition})
	}
	return out
}

// kind says whose policy it is: what "*" means in it depends on that.
type kind int

const (
	ofRole     kind = iota // of an identity
	ofKey                  // of a KMS key: the resource is the key itself
	ofTrust                // who may assume a role: no resource
	ofEndpoint             // of a VPC endpoint
)

// least checks that a policy gives no more than is needed.
func least(t *testing.T, where string, k kind, policy any, seen map[string]bool) {
	t.Helper()
	for _, s := range statements(t, policy) {
		for _, a := range s.Action {
			if strings.Contains(a, "*") {
				t.Errorf("%s: action %s", where, a)
			}
			if s.Effect != "Allow" {
				continue
			}
			seen[a] = true
			if needed()[a] == "" {
				t.Errorf("%s gives %s, which no call is known to need", where, a)
			}
			if (a == "kms:Decrypt" || a == "kms:GenerateDataKeyWithoutPlaintext") && k != ofEndpoint {
				if c, _ := s.Condition["StringEquals"].(map[string]any); c["kms:EncryptionContext:audience"] == nil {
					t.Errorf("%s: %s is not bound to the audience", where, a)
				}
			}
			if a == "kms:Decrypt" && k == ofKey && slices.ContainsFunc(list(s.Principal["AWS"]), func(p string) bool { return strings.HasSuffix(p, ":root") }) {
				t.Errorf("%s: whoever the account's policies allow may decrypt", where)
			}
		}
		for _, p := range s.Principal {
			if slices.Contains(list(p), "*") {
				t.Errorf("%s: everybody is meant", where)
			}
		}
		if s.Effect != "Allow" || k == ofKey || k == ofTrust {
			continue
		}
		if len(s.Resource) == 0 {
			t.Errorf("%s: %v without a resource", where, s.Action)
		}
		for _, r := range s.Resource {
			free := slices.ContainsFunc(s.Action, func(a string) bool { return !slices.Contains(noResources(), a) })
			if r == "*" && free || strings.Contains(r, ":::*") || strings.HasSuffix(r, ":function:*") {
				t.Errorf("%s: %v on %s", where, s.Action, r)
			}
		}
	}
}

// TestTheTemplatesGiveEachPermissionForACall holds for each set of parameters.
func TestTheTemplatesGiveEachPermissionForACall(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, a := range applications() {
		a.permissions(t, seen)
	}
	allAreGiven(t, seen)
}

func (a application) permissions(t *testing.T, seen map[string]bool) {
	t.Helper()
	template, stacks := a.translate(t)
	for name, given := range a.variants {
		d := deploy(t, &template, stacks[name], given)
		for id := range d.stack.Resources {
			r, ok := d.made(id)
			if !ok {
				continue
			}
			where := a.file + ", " + name + ", " + id
			switch r.Type {
			case "AWS::IAM::Role":
				least(t, where, ofTrust, r.Properties["AssumeRolePolicyDocument"], seen)
				for _, p := range r.Properties["Policies"].([]any) {
					least(t, where, ofRole, p.(map[string]any)["PolicyDocument"], seen)
				}
				for _, arn := range list(r.Properties["ManagedPolicyArns"]) {
					if arn != "<NetworkPolicy>" {
						t.Errorf("%s has the policy %s, which is not in the template", where, arn)
					}
				}
			case "AWS::IAM::RolePolicy", "AWS::IAM::ManagedPolicy":
				least(t, where, ofRole, r.Properties["PolicyDocument"], seen)
			case "AWS::KMS::Key":
				least(t, where, ofKey, r.Properties["KeyPolicy"], seen)
			case "AWS::EC2::VPCEndpoint":
				least(t, where, ofEndpoint, r.Properties["PolicyDocument"], seen)
			case "AWS::Lambda::Permission":
				seen[r.Properties["Action"].(string)] = true
				if r.Properties["SourceArn"] == nil {
					t.Errorf("%s: any rule of any account may invoke it", where)
				}
			}
		}
	}
}

// appliedPermissions looks at what Terraform made.
func appliedPermissions(t *testing.T, state *applied) {
	t.Helper()
	seen := map[string]bool{}
	for _, r := range state.Values.RootModule.ChildModules[0].Resources {
		switch r.Type {
		case "aws_iam_role":
			least(t, r.Address, ofTrust, r.Values["assume_role_policy"], seen)
		case "aws_iam_role_policy":
			least(t, r.Address, ofRole, r.Values["policy"], seen)
		case "aws_kms_key":
			least(t, r.Address, ofKey, r.Values["policy"], seen)
		case "aws_vpc_endpoint":
			least(t, r.Address, ofEndpoint, r.Values["policy"], seen)
		case "aws_lambda_permission":
			seen[r.Values["action"].(string)] = true
			if r.Values["source_arn"] == "" {
				t.Errorf("%s: any rule of any account may invoke it", r.Address)
			}
		case "aws_iam_role_policy_attachment", "aws_iam_policy":
			t.Errorf("%s is not looked at here", r.Address)
		}
	}
	allAreGiven(t, seen)
}

// allAreGiven reports what is needed and missing.
func allAreGiven(t *testing.T, seen map[string]bool) {
	t.Helper()
	for _, a := range slices.Sorted(maps.Keys(needed())) {
		if !seen[a] {
			t.Errorf("%s is given to nobody, though it is needed: %s", a, needed()[a])
		}
	}
}
