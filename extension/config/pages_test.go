package config

import (
	"bytes"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables of settings in the documentation anew")

// docTable is one table of settings in the documentation. A page has it
// between the lines <!-- settings:NAME:begin --> and <!-- settings:NAME:end -->.
type docTable struct {
	page string // below the repository's root
	name string
	rows []docRow
}

// docRow is one setting of a table. The page says where the setting works, if
// it does not work everywhere, and gives an example where neither the default
// nor what is allowed is one.
type docRow struct {
	name    string
	where   string
	example string
}

// repeated are tables that repeat settings of other tables.
const repeated = "README.md"

func docTables() []docTable {
	const settings = "docs/settings.md"
	lambda, azure, elsewhere := "Lambda", "Azure", "where nothing freezes"
	return []docTable{
		{repeated, "common", []docRow{
			{name: "VAULT_ADDR", example: "https://vault.example.com:8200"},
			{name: "VAULT_NAMESPACE", example: "team/app"},
			{name: "VAULT_CACERT", example: "/opt/ca.pem"},
			{name: "VAULT_AUTH_ROLE", example: "my-function"},
			{name: "VAULT_AUTH_PROVIDER", example: "aws-prod"},
			{name: "THAW_MAX_AGE", example: "10s"},
			{name: "THAW_STALE_IF_ERROR"},
			{name: "THAW_CAPABILITY_REFRESH_BEHAVIOR"},
			{name: "THAW_ACCESS_LOG"},
			{name: "VAULT_LOG_LEVEL"},
		}},
		{settings, "vault", []docRow{
			{name: "VAULT_ADDR", example: "https://vault.example.com:8200"},
			{name: "VLE_VAULT_ADDR", example: "https://vault.example.com:8200"},
			{name: "VAULT_NAMESPACE", example: "team/app"},
			{name: "VAULT_CACERT", example: "/opt/ca.pem"},
			{name: "VAULT_CACERT_BYTES", example: "-----BEGIN CERTIFICATE-----..."},
			{name: "VAULT_CAPATH", example: "/etc/ssl/vault"},
			{name: "VAULT_CLIENT_CERT", example: "/opt/client.pem"},
			{name: "VAULT_CLIENT_KEY", example: "/opt/client-key.pem"},
			{name: "VAULT_TLS_SERVER_NAME", example: "vault.example.com"},
			{name: "VAULT_SKIP_VERIFY"},
			{name: "VAULT_HEADERS", example: `{"X-Team":"payments"}`},
			{name: "VAULT_PROXY_ADDR", example: "http://proxy.example.com:3128"},
			{name: "HTTPS_PROXY", example: "http://proxy.example.com:3128"},
			{name: "HTTP_PROXY", example: "http://proxy.example.com:3128"},
			{name: "NO_PROXY", example: ".example.com,10.0.0.0/8"},
		}},
		{settings, "login", []docRow{
			{name: "VAULT_AUTH_ROLE", example: "my-function"},
			{name: "THAW_AUTH_METHOD"},
			{name: "VAULT_AUTH_PROVIDER", example: "aws-prod"},
			{name: "VAULT_IAM_SERVER_ID", example: "vault.example.com"},
			{name: "VAULT_STS_ENDPOINT_REGION", example: "eu-central-1"},
			{name: "VAULT_ASSUMED_ROLE_ARN", example: "arn:aws:iam::123456789012:role/vault-login"},
			{name: "THAW_ROLE_ID", example: "6a1c..."},
			{name: "THAW_ROLE_ID_FILE", example: "/run/role-id"},
			{name: "THAW_SECRET_ID", example: "9f3e..."},
			{name: "THAW_SECRET_ID_FILE", example: "/run/secret-id"},
			{name: "THAW_JWT_FILE", example: "/run/token.jwt"},
			{name: "VAULT_TOKEN", example: "hvs.CAESI..."},
			{name: "THAW_TOKEN_FILE", example: "/run/vault-token"},
			{name: "VAULT_TOKEN_EXPIRY_GRACE_PERIOD"},
		}},
		{settings, "freshness", []docRow{
			{name: "THAW_MAX_AGE", example: "10s"},
			{name: "THAW_RECHECK"},
			{name: "THAW_POLL"},
			{name: "THAW_POLL_TIMEOUT"},
			{name: "THAW_PREFETCH", example: "secret/data/app,secret/data/db"},
			{name: "THAW_INIT"},
			{name: "THAW_STALE_IF_ERROR"},
			{name: "THAW_CAPABILITY_REFRESH_INTERVAL"},
			{name: "THAW_CAPABILITY_REFRESH_BEHAVIOR"},
			{name: "THAW_CACHE_BYTES"},
			{name: "VAULT_DEFAULT_CACHE_ENABLED"},
			{name: "VAULT_DEFAULT_CACHE_TTL", example: "5m"},
			{name: "THAW_KV_MOUNTS", example: "secret=2,kv=1"},
			{name: "THAW_NO_CACHE_PATHS", example: "secret/data/audited/*"},
			{name: "THAW_NEGATIVE_TTL", example: "1m"},
		}},
		{settings, "listener", []docRow{
			{name: "THAW_LISTEN"},
			{name: "THAW_CONFIG", example: "/opt/proxy.hcl"},
			{name: "THAW_LOCAL_TOKEN", example: "s3cr3t"},
			{name: "THAW_REQUIRE_REQUEST_HEADER"},
			{name: "THAW_ALLOWED_HOSTS", example: "thaw.internal"},
		}},
		{settings, "logs", []docRow{
			{name: "VAULT_LOG_LEVEL"},
			{name: "THAW_ACCESS_LOG"},
			{name: "THAW_EMF"},
		}},
		{settings, "files", []docRow{
			{name: "VAULT_SECRET_PATH", where: lambda, example: "secret/data/app"},
			{name: "VAULT_SECRET_FILE", where: lambda, example: "app.json"},
			{name: "VAULT_RUN_MODE", where: lambda},
			{name: "THAW_FILE_OPTIONAL", where: lambda},
			{name: "THAW_FILE_TIMEOUT", where: lambda},
		}},
		{settings, "nodes", []docRow{
			{name: "THAW_VAULT_ADDRS", example: "https://vault-1.example.com:8200,https://vault-2.example.com:8200"},
			{name: "THAW_VAULT_READ_ADDRS", example: "https://standby.example.com:8200"},
			{name: "THAW_READS"},
			{name: "THAW_DISABLE_PERFORMANCE_STANDBY"},
			{name: "VAULT_SRV_LOOKUP"},
			{name: "THAW_EVENTS", where: elsewhere},
			{name: "THAW_ENFORCE_CONSISTENCY"},
			{name: "THAW_WHEN_INCONSISTENT"},
			{name: "THAW_CONSISTENCY_SCOPE"},
		}},
		{settings, "limits", []docRow{
			{name: "VAULT_CLIENT_TIMEOUT"},
			{name: "THAW_CONNECT_TIMEOUT"},
			{name: "VAULT_MAX_RETRIES"},
			{name: "VAULT_RATE_LIMIT", example: "20:40"},
			{name: "THAW_MAX_IN_FLIGHT"},
			{name: "THAW_MAX_QUEUED"},
			{name: "THAW_MAX_CONNS"},
			{name: "THAW_MAX_BODY"},
		}},
		{settings, "rare", []docRow{
			{name: "THAW_IDLE_CONN"},
			{name: "THAW_POLL_CONCURRENCY"},
			{name: "THAW_HEADER_TIMEOUT"},
			{name: "THAW_BODY_TIMEOUT"},
			{name: "THAW_BODY_RATE"},
			{name: "THAW_MAX_HEADER"},
			{name: "THAW_MAX_PROCS"},
			{name: "THAW_WAL_WAIT"},
			{name: "THAW_UNKNOWN"},
			{name: "VAULT_HTTP_PROXY", example: "http://proxy.example.com:3128"},
			{name: "AWS_STS_REGIONAL_ENDPOINTS"},
			{name: "AWS_USE_FIPS_ENDPOINT"},
			{name: "AWS_ENDPOINT_URL_STS", example: "https://sts.eu-central-1.amazonaws.com"},
			{name: "AWS_ENDPOINT_URL_KMS", example: "https://kms.eu-central-1.amazonaws.com"},
			{name: "AWS_ENDPOINT_URL", example: "http://127.0.0.1:4566"},
			{name: "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"},
		}},
		{"docs/warm-up.md", "shared", []docRow{
			{name: "CACHE_ENABLE"},
			{name: "THAW_MEMCACHED", example: "tls://cache-1.example.com:11211"},
			{name: "THAW_CACHE_KEY", example: "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="},
			{name: "THAW_CACHE_KEY_KMS", example: "AQIDAHh..."},
			{name: "THAW_AUDIENCE", example: "my-team"},
			{name: "THAW_MEMCACHED_TIMEOUT"},
			{name: "THAW_MEMCACHED_CACERT", example: "/opt/cache-ca.pem"},
			{name: "THAW_MEMCACHED_TLS_SERVER_NAME", example: "cache.example.com"},
			{name: "THAW_MEMCACHED_CLIENT_CERT", example: "/opt/cache-client.pem"},
			{name: "THAW_MEMCACHED_CLIENT_KEY", example: "/opt/cache-client-key.pem"},
			{name: "THAW_CLOCK_SKEW"},
			{name: "THAW_NO_SHARE_PATHS", example: "secret/data/payments/*"},
		}},
		{"docs/warm-up.md", "warm-up", []docRow{
			{name: "PROACTIVE_CACHE_ENABLE"},
			{name: "NEW_PROACTIVE_CACHE_ENABLE"},
			{name: "THAW_WARM_PATHS", example: "secret/,kv/app/"},
			{name: "THAW_WARM_AUDIENCES", example: `[{"audience":"my-team","paths":["secret/"]}]`},
			{name: "CACHE_TTL", example: "60"},
			{name: "PROACTIVE_CACHE_MINIMUM_FETCHING_TIME"},
			{name: "PROACTIVE_CACHE_WORKERS"},
			{name: "THAW_WARM_FOR", example: "50s"},
			{name: "THAW_WARM_CONFIRMED_ONLY"},
			{name: "PROACTIVE_CACHE_DUMP_INTERVAL", example: "60"},
			{name: "THAW_DUMP", example: "s3://my-bucket/thaw"},
		}},
		{"docs/azure.md", "azure", []docRow{
			{name: "THAW_AZURE_RESOURCE", where: azure, example: "api://vault"},
			{name: "THAW_AZURE_CLIENT_ID", where: azure, example: "33333333-3333-3333-3333-333333333333"},
			{name: "THAW_AZURE_RESOURCE_ID", where: azure, example: "/subscriptions/S/resourceGroups/G/providers/Microsoft.Web/sites/APP"},
			{name: "THAW_AZURE_PLAN", where: azure},
			{name: "THAW_CACHE_KEY_KEYVAULT", where: azure, example: "https://my-vault.vault.azure.net/keys/thaw/0123#AAAA"},
			{name: "THAW_WARM_FUNCTION", where: azure},
		}},
	}
}

// explained is a setting with what the comment on its field says.
type explained struct {
	Setting
	meaning string
}

// explainedSettings reads the comments on the fields of this package.
func explainedSettings(t *testing.T) map[string]explained {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	meanings := map[string]string{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if f, ok := n.(*ast.Field); ok && f.Tag != nil {
				name := regexp.MustCompile(`"(\w+)`).FindStringSubmatch(f.Tag.Value)[1]
				meanings[name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
			}
			return true
		})
	}
	all := map[string]explained{}
	for _, s := range Settings(ForAzure()) {
		all[s.Name] = explained{s, meanings[s.Name]}
	}
	return all
}

func TestRowsAreComplete(t *testing.T) {
	t.Parallel()
	known := explainedSettings(t)
	seen := map[string]bool{}
	for _, s := range Settings(ForAzure()) {
		if seen[s.Name] {
			t.Errorf("%s stands twice", s.Name)
		}
		seen[s.Name] = true
		meaning := known[s.Name].meaning
		if s.Type == "" || meaning == "" || !strings.HasSuffix(meaning, ".") {
			t.Errorf("%s: incomplete row %+v, %q", s.Name, s, meaning)
		}
	}
}

// markdown renders a table.
func (d docTable) markdown(known map[string]explained) []byte {
	var b bytes.Buffer
	b.WriteString("| Variable | Meaning | Default | Allowed |\n|---|---|---|---|\n")
	for _, r := range d.rows {
		s, def := known[r.name], "none"
		if s.Default != "" {
			def = "`" + s.Default + "`"
		}
		meaning := s.meaning
		if r.where != "" {
			meaning = "(" + r.where + ") " + meaning
		}
		if r.example != "" {
			meaning += " Example: `" + r.example + "`"
		}
		cells := []string{"`" + s.Name + "`", strings.ReplaceAll(meaning, "|", `\|`), def, strings.ReplaceAll(s.Type, "|", `\|`)}
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	return b.Bytes()
}

// TestPagesListEverySetting holds the tables of settings in the documentation
// to the settings. Run it with -update to write the tables anew.
func TestPagesListEverySetting(t *testing.T) {
	t.Parallel()
	known := explainedSettings(t)
	listed := map[string]bool{}
	for _, d := range docTables() {
		for _, r := range d.rows {
			if _, ok := known[r.name]; !ok {
				t.Errorf("%s: there is no setting %s", d.page, r.name)
			}
			if d.page != repeated && listed[r.name] {
				t.Errorf("%s is listed twice", r.name)
			}
			listed[r.name] = listed[r.name] || d.page != repeated
		}
		text := d.markdown(known)
		for row := range strings.Lines(string(text)) {
			if strings.Count(strings.ReplaceAll(row, `\|`, ""), "|") != 5 {
				t.Errorf("%s: a row with a wrong number of cells: %s", d.page, row)
			}
		}
		hold(t, d, text)
	}
	for _, s := range Settings(ForAzure()) {
		if listed[s.Name] == s.Platform {
			t.Errorf("%s: set by the platform: %t, in a table: %t", s.Name, s.Platform, listed[s.Name])
		}
	}
}

// TestATableSaysWhatASettingIs: its default, what is allowed, where it works.
func TestATableSaysWhatASettingIs(t *testing.T) {
	t.Parallel()
	known := map[string]explained{"A": {Setting{Name: "A", Default: "1s", Type: "a|b"}, "One."}}
	got := string(docTable{rows: []docRow{{"A", "Lambda", "2s"}}}.markdown(known))
	if want := "| `A` | (Lambda) One. Example: `2s` | `1s` | a\\|b |\n"; !strings.HasSuffix(got, "|---|---|---|---|\n"+want) {
		t.Errorf("%s", got)
	}
}

// hold compares a page's table with what it should be, or writes it.
func hold(t *testing.T, d docTable, want []byte) {
	t.Helper()
	file := filepath.Join("..", "..", filepath.FromSlash(d.page))
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := []byte("<!-- settings:"+d.name+":begin -->\n"), []byte("<!-- settings:"+d.name+":end -->\n")
	before, rest, ok := bytes.Cut(text, begin)
	got, after, ok2 := bytes.Cut(rest, end)
	switch {
	case !ok || !ok2:
		t.Errorf("%s lacks the lines %q and %q", d.page, begin, end)
	case bytes.Equal(got, want):
	case !*update:
		t.Errorf("%s: the table %q is not what the settings say; write it anew with: go test ./extension/config -run TestPagesListEverySetting -update", d.page, d.name)
	default:
		if err := os.WriteFile(file, slices.Concat(before, begin, want, end, after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestExamplesOfSettingsAreTaken parses each example that a table gives.
func TestExamplesOfSettingsAreTaken(t *testing.T) {
	t.Parallel()
	rows := table(&draft{}, ForAzure())
	for _, d := range docTables() {
		for _, r := range d.rows {
			i := slices.IndexFunc(rows, func(s Setting) bool { return s.Name == r.name })
			if i < 0 || r.example == "" || strings.HasSuffix(r.example, "...") {
				continue // an example that is cut short
			}
			if err := assign(rows[i].to, rows[i].Type, r.example); err != nil {
				t.Errorf("%s=%s: %v", r.name, r.example, err)
			}
		}
	}
}
