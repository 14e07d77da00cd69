package ship

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDashboardsAndAlarmsLookAtMetricsThatThereAre compares every name of a
// metric in the SAM template and the Terraform module with what the extension
// and the warm-up write.
func TestDashboardsAndAlarmsLookAtMetricsThatThereAre(t *testing.T) {
	t.Parallel()
	name := regexp.MustCompile(`\bthaw_[a-z_]+[a-z]\b`)
	written := map[string]bool{}
	for _, folder := range []string{"extension/app", "functions/warmup"} {
		err := filepath.WalkDir(filepath.Join(root(t), folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			b, err := os.ReadFile(path)
			for _, m := range regexp.MustCompile(`"thaw_[a-z_]+"`).FindAllString(string(b), -1) {
				written[strings.Trim(m, `"`)] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	usual := map[string]bool{} // what THAW_EMF=true writes
	for _, m := range regexp.MustCompile(`main\(counter\("(thaw_[a-z_]+)"|Name: "(thaw_[a-z_]+)".*Main: true`).FindAllStringSubmatch(file(t, "extension/app/sight.go"), -1) {
		usual[m[1]+m[2]] = true
	}
	if len(usual) != 10 {
		t.Errorf("THAW_EMF=true writes %d metrics, the page says ten", len(usual))
	}
	for _, where := range [][]string{{"template.yaml", "template-cache.yaml"}, {"terraform/aws/watch.tf"}} {
		var text string
		for _, one := range where {
			text += file(t, one)
		}
		seen := name.FindAllString(text, -1)
		if len(seen) < 15 {
			t.Errorf("%s names %d metrics", where, len(seen))
		}
		for _, m := range seen {
			if !written[m] {
				t.Errorf("%s looks at %s, which nothing writes", where, m)
			}
			if !strings.HasPrefix(m, "thaw_warm_") && !usual[m] {
				t.Errorf("%s looks at %s, which THAW_EMF=true does not write", where, m)
			}
		}
		for m := range usual {
			if !strings.Contains(text, m) {
				t.Errorf("%s has no use for %s, which costs money", where, m)
			}
		}
		if n := strings.Count(text, `GROUP BY`); n < 1 {
			t.Errorf("%s has no alarm of each function", where)
		}
		for _, alarm := range []string{"thaw_stale_total", "thaw_polls_failed_total", "thaw_origin_refused_total", "thaw_origin_foreign_total", "thaw_warm_gate_exhausted", "thaw_warm_last_full_age_seconds"} {
			if strings.Count(text, alarm) < 2 {
				t.Errorf("%s has no alarm on %s, or does not show it", where, alarm)
			}
		}
	}
}
