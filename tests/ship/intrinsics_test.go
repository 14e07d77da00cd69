package ship

import (
	"fmt"
	"strings"
	"testing"
)

// deployment evaluates a stack as CloudFormation would: parameters, conditions
// and functions become values, so that a test can look at what is really made.
// What AWS would tell only later (an ARN, an address) becomes a text that says
// whose it is.
// https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference.html
type deployment struct {
	t          *testing.T
	stack      stack
	parameters map[string]any
}

// nothing stands for AWS::NoValue.
type nothing struct{}

// deploy gives the parameters that are missing their defaults.
func deploy(t *testing.T, template *sam, s stack, given map[string]string) *deployment {
	t.Helper()
	d := &deployment{t: t, stack: s, parameters: map[string]any{}}
	for name, p := range template.Parameters {
		v := fmt.Sprint(p.Default)
		if g, ok := given[name]; ok {
			v = g
		} else if p.Default == nil {
			t.Fatalf("the parameter %s has no default", name)
		}
		if p.Type == "CommaDelimitedList" {
			var list []any
			for part := range strings.SplitSeq(v, ",") {
				list = append(list, part)
			}
			d.parameters[name] = list
			continue
		}
		d.parameters[name] = v
	}
	return d
}

// made is a resource with everything evaluated; false if its condition says
// that there is none.
func (d *deployment) made(id string) (resource, bool) {
	r, ok := d.stack.Resources[id]
	if !ok || r.Condition != "" && !d.condition(r.Condition) {
		return resource{}, false
	}
	properties, _ := d.value(r.Properties).(map[string]any)
	return resource{Type: r.Type, Properties: properties}, true
}

func (d *deployment) condition(name string) bool {
	c, ok := d.stack.Conditions[name]
	if !ok {
		d.t.Fatalf("there is no condition %s", name)
	}
	return d.truth(c)
}

func (d *deployment) truth(v any) bool {
	for name, arg := range v.(map[string]any) {
		list, _ := arg.([]any)
		switch name {
		case "Condition":
			return d.condition(arg.(string))
		case "Fn::Equals":
			return fmt.Sprint(d.value(list[0])) == fmt.Sprint(d.value(list[1]))
		case "Fn::Not":
			return !d.truth(list[0])
		case "Fn::And", "Fn::Or":
			for _, one := range list {
				if d.truth(one) == (name == "Fn::Or") {
					return name == "Fn::Or"
				}
			}
			return name == "Fn::And"
		}
	}
	d.t.Fatalf("not a condition: %v", v)
	return false
}

func (d *deployment) value(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 1 {
			for name, arg := range v {
				if strings.HasPrefix(name, "Fn::") || name == "Ref" {
					return d.call(name, arg)
				}
			}
		}
		out := map[string]any{}
		for k, one := range v {
			if got := d.value(one); got != (any)(nothing{}) {
				out[k] = got
			}
		}
		return out
	case []any:
		out := []any{}
		for _, one := range v {
			if got := d.value(one); got != (any)(nothing{}) {
				out = append(out, got)
			}
		}
		return out
	}
	return v
}

func (d *deployment) call(name string, arg any) any {
	list, _ := arg.([]any)
	switch name {
	case "Ref":
		return d.ref(arg.(string))
	case "Fn::GetAtt":
		return attribute(fmt.Sprintf("%v.%v", list[0], list[1]))
	case "Fn::If":
		if d.condition(list[0].(string)) {
			return d.value(list[1])
		}
		return d.value(list[2])
	case "Fn::Join":
		var parts []string
		for _, one := range d.value(list[1]).([]any) {
			parts = append(parts, fmt.Sprint(one))
		}
		return strings.Join(parts, list[0].(string))
	case "Fn::Split":
		var parts []any
		for one := range strings.SplitSeq(d.value(list[1]).(string), list[0].(string)) {
			parts = append(parts, one)
		}
		return parts
	case "Fn::Select":
		return d.value(list[1]).([]any)[int(list[0].(float64))]
	case "Fn::Sub":
		return d.sub(arg)
	}
	d.t.Fatalf("%s is not understood", name)
	return nil
}

func (d *deployment) ref(name string) any {
	if v, ok := d.parameters[name]; ok {
		return v
	}
	switch name {
	case "AWS::NoValue":
		return nothing{}
	case "AWS::StackName":
		return "thaw"
	case "AWS::Region":
		return "eu-central-1"
	case "AWS::AccountId":
		return "123456789012"
	case "AWS::Partition":
		return "aws"
	}
	return "<" + name + ">"
}

// attribute is what AWS would say of a resource.
func attribute(name string) string {
	switch {
	case strings.HasSuffix(name, ".Port"):
		return "11211"
	case strings.HasSuffix(name, ".Address"):
		return "thaw.abc123.cfg.euc1.cache.amazonaws.com"
	}
	return "<" + name + ">"
}

// sub replaces ${...} by variables of its own, parameters, and attributes.
func (d *deployment) sub(arg any) string {
	text, own := "", map[string]any{}
	switch arg := arg.(type) {
	case string:
		text = arg
	case []any:
		text, own = arg[0].(string), arg[1].(map[string]any)
	}
	var out strings.Builder
	for {
		before, rest, ok := strings.Cut(text, "${")
		out.WriteString(before)
		if !ok {
			return out.String()
		}
		name, after, ok := strings.Cut(rest, "}")
		if !ok {
			d.t.Fatalf("unfinished ${ in %s", text)
		}
		if v, ok := own[name]; ok {
			fmt.Fprint(&out, d.value(v))
		} else if strings.Contains(name, ".") {
			out.WriteString(attribute(name))
		} else {
			fmt.Fprint(&out, d.ref(name))
		}
		text = after
	}
}
