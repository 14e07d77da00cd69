package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// slips gives usual misspellings of a name.
func slips(name string) []string {
	n := len(name)
	list := []string{
		name[:n-1],                    // a letter lost
		name + "S",                    // one more
		name[:n-2] + "Q" + name[n-1:], // another
		name[:7] + "Q" + name[7:],     // one between
		strings.ToLower(name),         // case
		name[:1] + strings.ToLower(name[1:]),
	}
	for i := 5; i+1 < n; i++ { // two swapped, behind the prefix
		if name[i] != name[i+1] && name[i] != '_' && name[i+1] != '_' {
			list = append(list, name[:i]+string(name[i+1])+string(name[i])+name[i+2:])
			break
		}
	}
	return list
}

func ourNames(prefix string) []string {
	var names []string
	for _, s := range Settings(ForAzure()) {
		if strings.HasPrefix(s.Name, prefix) {
			names = append(names, s.Name)
		}
	}
	return names
}

const someAddr = "VLE_VAULT_ADDR=https://vault.example.com"

func TestMisspeltThawVariableIsAnErrorWithTheNearestName(t *testing.T) {
	t.Parallel()
	known := ourNames("THAW_")
	isKnown := map[string]bool{}
	for _, name := range known {
		isKnown[name] = true
	}
	for _, name := range known {
		for _, slip := range slips(name) {
			if isKnown[slip] {
				continue // THAW_ROLE_ID is a name of its own
			}
			for _, value := range []string{"hunter2", ""} {
				_, _, err := Load(Source{Environ: []string{someAddr, slip + "=" + value}})
				if err == nil {
					t.Errorf("%s is taken", slip)
					continue
				}
				text := err.Error()
				if !strings.Contains(text, slip+": thaw has no such setting") || !strings.Contains(text, name) {
					t.Errorf("%s: does not name %s: %s", slip, name, text)
				}
				if strings.Contains(text, "hunter2") {
					t.Errorf("%s: shows its value: %s", slip, text)
				}
			}
		}
	}
	_, _, err := Load(Source{Environ: []string{someAddr, "THAW_SOMETHING_ELSE_ENTIRELY=1"}})
	if err == nil || strings.Contains(err.Error(), "did you mean") {
		t.Errorf("an unknown name far from ours: %v", err)
	}
}

// A rollback finds the settings of a newer version. It must say that it may.
func TestUnknownNamesAreWarningsOnlyWhereThatIsAskedFor(t *testing.T) {
	t.Parallel()
	unknown := []string{someAddr, "THAW_NEWER_THING=hunter2", "THAW_RECHEK=hunter2"}
	_, _, err := Load(Source{Environ: unknown})
	if err == nil || strings.Count(err.Error(), "or set THAW_UNKNOWN=warn for a rollback") != 2 {
		t.Error(err)
	}
	_, warnings, err := Load(Source{Environ: append(unknown, "THAW_UNKNOWN=warn")})
	if err != nil || len(warnings) != 2 || !strings.Contains(warnings[0].Message, "THAW_NEWER_THING: thaw has no such setting") ||
		!strings.Contains(warnings[1].Message, "did you mean THAW_RECHECK?") || strings.Contains(warnings[0].Message+warnings[1].Message, "hunter2") {
		t.Errorf("%v, %v", warnings, err)
	}
}

func TestNearMissOfVaultsNamesIsAWarning(t *testing.T) {
	t.Parallel()
	for slip, want := range map[string]string{
		"VAULT_ADRR": "VAULT_ADDR", "VAULT_ADDRESS": "VAULT_ADDR", "vault_addr": "VAULT_ADDR", "VUALT_ADDR": "VAULT_ADDR", "VALUT_NAMESPACE": "VAULT_NAMESPACE",
		"VAULT_NAMSPACE": "VAULT_NAMESPACE", "VAULT_CA_CERT": "VAULT_CACERT", "VAULT_AUTH_ROLES": "VAULT_AUTH_ROLE", "VAULT_AUTH_PROVDIER": "VAULT_AUTH_PROVIDER",
		"VLE_VAULT_ADR": "VLE_VAULT_ADDR", "VAULT_SECERT_PATH": "VAULT_SECRET_PATH", "VAULT_SECERT_PATH_DB": "VAULT_SECRET_PATH_DB", "VAULT_SECRET_FLIE_DB": "VAULT_SECRET_FILE_DB",
		"VAULT_SKIP_VERFIY": "VAULT_SKIP_VERIFY", "VAULT_TOKEN_EXPIRY_GRACE_PERIODE": "VAULT_TOKEN_EXPIRY_GRACE_PERIOD", "VAULT_TOKENS": "VAULT_TOKEN", "THWA_MAX_AGE": "THAW_MAX_AGE",
	} {
		_, warnings, err := Load(Source{Environ: []string{someAddr, slip + "=hunter2"}})
		if err != nil {
			t.Errorf("%s: %v", slip, err)
		}
		if len(warnings) != 1 || !strings.Contains(warnings[0].Message, slip+" is not a variable that thaw reads; did you mean "+want+"?") || strings.Contains(warnings[0].Message, "hunter2") {
			t.Errorf("%s: warnings %v, want one that names %s", slip, warnings, want)
		}
	}
	// Names of others that only look alike.
	for _, name := range []string{
		"VAULT_AGENT_ADDR", "VAULT_API_ADDR", "VAULT_CLUSTER_ADDR", "VAULT_REDIRECT_ADDR", "VAULT_LOG_FORMAT", "VAULT_FORMAT", "VAULT_MFA", "VAULT_WRAP_TTL",
		"VAULT_CLI_NO_COLOR", "VAULT_LICENSE_PATH", "VAULT_DISABLE_REDIRECTS", "VAULT_PATH", "VAULT_ROLE", "VAULT_URL", "VAULT_SECRET_DATA_JSON", "VAULT_DEV_ROOT_TOKEN_ID",
		"THAT_IS", "TABLE_NAME", "FILE_NAME", "VALET_KEY", "CACHE_TTL", "CACHE_ENABLED", "A_B", "_", "",
	} {
		_, warnings, err := Load(Source{Environ: []string{someAddr, name + "=1"}})
		if err != nil || len(warnings) != 0 {
			t.Errorf("%s: %v, warnings %v", name, err, warnings)
		}
	}
}

func TestDistanceCountsSlips(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"abc", "ab", 1}, {"abc", "abcd", 1},
		{"abc", "axc", 1}, {"ca", "abc", 3}, {"THAW_RECHEK", "THAW_RECHECK", 1}, {"kitten", "sitting", 3}, {strings.Repeat("a", 100), "a", farAway},
	} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestDurationsAreVaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   string
		want time.Duration
		err  error
	}{
		{"0", 0, nil}, {"90", 90 * time.Second, nil}, {"5m", 5 * time.Minute, nil}, {"1h30m", 90 * time.Minute, nil}, {"1d", 24 * time.Hour, nil},
		{"1.5s", 1500 * time.Millisecond, nil}, {"10ms", 10 * time.Millisecond, nil}, {"0d", 0, nil}, {"106751d", 106751 * 24 * time.Hour, nil},
		{"9223372036", 9223372036 * time.Second, nil},
		{"-1", 0, errNegative}, {"-1s", 0, errNegative}, {"-1d", 0, errNegative}, {"9223372037", 0, errTooLarge}, {"106752d", 0, errTooLarge},
		{"99999999999999999999", 0, errTooLarge}, {"99999999999999999999d", 0, errTooLarge},
		{"", 0, errDuration}, {"d", 0, errDuration}, {"1.5", 0, errDuration}, {"1.5d", 0, errDuration}, {"1d2h", 0, errDuration}, {"5 m", 0, errDuration}, {"5M", 0, errDuration}, {"1e3", 0, errDuration}, {"9999999h", 0, errDuration},
	} {
		got, err := parseDuration(tt.in)
		if got != tt.want || err != tt.err {
			t.Errorf("parseDuration(%q) = %v, %v; want %v, %v", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func TestSizesCountBytes(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{
		"0": 0, "1": 1, "16MiB": 16 << 20, "16 mib": 16 << 20, "2K": 2 << 10, "3g": 3 << 30, "5b": 5, "8589934591GiB": 8589934591 << 30,
		"": -1, "-1": -1, "1MB": -1, "1.5M": -1, "8589934592GiB": -1, "9223372036854775808": -1, "1T": -1, "0x10": -1, "1 M B": -1,
	} {
		got, err := parseSize(in)
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("parseSize(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
}

// Rules name settings by their text. A slip there would be a rule about nothing.
func TestRulesNameSettingsThatThereAre(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, s := range Settings(ForAzure()) {
		known[s.Name] = true
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	like := regexp.MustCompile(`"((?:THAW|VAULT|VLE|AWS|CACHE|PROACTIVE|NEW|HTTP|HTTPS|NO)_[A-Z_]+)"`)
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range like.FindAllStringSubmatch(string(src), -1) {
			found++
			if !known[m[1]] && !strings.HasSuffix(m[1], "_") {
				t.Errorf("%s: %s is no setting", file, m[1])
			}
		}
	}
	if found < len(known) {
		t.Errorf("%d names for %d settings", found, len(known))
	}
}
