package doctor

import (
	"context"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// sight is where those who run a thaw see a fault without the doctor: parts of the
// log, of the status and of the metrics. unseen says why nothing shows it.
type sight struct{ log, status, metrics, unseen string }

// sights says for each fault where it is seen. Of metrics a part is a name: it must
// not be 0.
func sights() map[string]sight {
	const (
		nothingFails = "nothing fails because of it here"
		warmUps      = "it is the warm-up's: its log and thaw_warm_failed show it"
		down         = `"silent_seconds":0`
		hung         = `"silent_seconds":1` // the question for the status takes one second
		out          = `"out":true`
		rereads      = "thaw_polls_reread_total"
	)
	all := map[string]sight{
		"a misspelt setting":            {log: "did you mean THAW_STALE_IF_ERROR?"},
		"no address":                    {log: "Vault's address is missing"},
		"memcached without a key":       {log: "needs a key"},
		"an address that is thaw's own": {log: "points back at thaw's own listener"},
		"a thaw where Vault should be":  {log: "to a request without a token: 403", metrics: "thaw_origin_refused_total"},

		"a name that does not exist":                  {log: "check the host name in VLE_VAULT_ADDR", status: down, metrics: "thaw_errors_total"},
		"nothing listens":                             {log: "nothing listens there", status: down, metrics: "thaw_errors_total"},
		"silence":                                     {log: "no answer in time", status: hung, metrics: "thaw_errors_total"},
		"something that is not Vault":                 {log: "in the place of Vault", status: `"foreign":`, metrics: "thaw_origin_foreign_total"},
		"an address with a path":                      {log: "in the place of Vault", status: `"foreign":`, metrics: "thaw_origin_foreign_total"},
		"a node that is away among several":           {status: `"role":"unreachable"`},
		"a certificate of an unknown CA":              {log: "unknown authority: set VAULT_CACERT", status: down, metrics: "thaw_errors_total"},
		"a certificate for another name":              {log: "the certificate is for another name", status: down, metrics: "thaw_errors_total"},
		"a certificate for an address alone":          {log: "the certificate is for another name", status: down, metrics: "thaw_errors_total"},
		"a certificate without alternative names":     {log: "the certificate is for another name", status: down, metrics: "thaw_errors_total"},
		"a certificate that has expired":              {log: "renew the origin's certificate", status: down, metrics: "thaw_errors_total"},
		"a certificate that ends soon":                {unseen: nothingFails},
		"https where none is spoken":                  {log: "does not speak TLS", status: down, metrics: "thaw_errors_total"},
		"http where TLS is spoken":                    {log: "in the place of Vault", status: `"foreign":`, metrics: "thaw_origin_foreign_total"},
		"no client certificate":                       {status: "check VAULT_CLIENT_CERT", metrics: "thaw_errors_total"},
		"a CA file that is not there":                 {log: "/nowhere/ca.pem"},
		"a clock that is two minutes off":             {unseen: nothingFails},
		"a clock that is an hour off, with AWS":       {unseen: "AWS's refusal would be seen as that of a login; the stand-in has no clock"},
		"a sealed Vault":                              {log: "Vault is sealed", status: `"sealed":true`, metrics: `thaw_origin_answers_total{code="503"}`},
		"a DR secondary":                              {status: `"role":"DR secondary"`},
		"a standby that lost its active node":         {status: `"role":"unhealthy standby"`},
		"two clusters":                                {log: "belongs to another cluster", status: `"role":"foreign"`},
		"nodes that disagree on performance standbys": {status: `"role":"performance standby"`, metrics: rereads},

		"an auth mount that is not there":   {log: "check VAULT_AUTH_PROVIDER", status: `"state":"none"`, metrics: "thaw_origin_refused_total"},
		"a wrong secret id":                 {log: "invalid role or secret ID", status: `"state":"none"`, metrics: "thaw_origin_refused_total"},
		"a token that was revoked":          {log: "give a valid one in VAULT_TOKEN", status: `"state":"refused"`, metrics: "thaw_origin_refused_total"},
		"a wrapping token":                  {log: "give a valid one in VAULT_TOKEN", status: `"state":"refused"`, metrics: "thaw_origin_refused_total"},
		"a given token with a longest life": {status: `"seconds_left":3`},
		"a batch token that is given":       {status: `"seconds_left":7`},
		"a token for a few uses":            {log: "only a few more times", status: "only a few more times"},
		"service tokens":                    {unseen: nothingFails},
		"a root token":                      {unseen: nothingFails},
		"STS of another region":             {log: "SignatureDoesNotMatch", status: `"state":"none"`, metrics: "thaw_origin_refused_total"},
		"no server id":                      {log: "X-Vault-AWS-IAM-Server-ID", status: `"state":"none"`, metrics: "thaw_origin_refused_total"},
		"a role bound to another principal": {log: "bound_iam_principal_arn", status: `"state":"none"`, metrics: "thaw_origin_refused_total"},
		"a role that does not exist":        {log: "check VAULT_AUTH_ROLE", status: `"state":"none"`, metrics: "thaw_origin_refused_total"},
		"no AWS credentials":                {log: "needs AWS credentials"},

		"a policy without the secret":                              {log: "check the token's policies"},
		"a policy without sys/capabilities-self":                   {log: `path \"sys/capabilities-self\" { capabilities = [\"update\"] }`, status: "sys/capabilities-self", metrics: "thaw_origin_refused_total"},
		"a warm-up that may not list":                              {unseen: warmUps},
		"a warm-up that may list and not read":                     {log: "check the token's policies", metrics: "thaw_origin_refused_total"},
		"a warm-up that may read some secrets only":                {unseen: warmUps},
		"a KV v2 path without data":                                {log: "check the token's policies", metrics: "thaw_origin_refused_total"},
		"a KV v2 path with data in capitals":                       {metrics: `thaw_origin_answers_total{code="404"}`, status: `"404":`},
		"a path with an empty part":                                {unseen: "Vault names another path, which callers follow"},
		"a KV v1 path with data":                                   {metrics: `thaw_origin_answers_total{code="404"}`, status: `"404":`},
		"a secret that is not there":                               {log: "there is no such secret"},
		"a mount that is not there":                                {metrics: `thaw_origin_answers_total{code="404"}`, status: `"404":`},
		"KV versions mixed up":                                     {unseen: "only a write through thaw is affected"},
		"a path without data under a narrow policy":                {log: "check the token's policies"},
		"warm-up prefixes in the API's style that may not be read": {unseen: warmUps},

		"forwarding by header is not allowed":            {unseen: nothingFails},
		"forwarding by header is needed and not allowed": {unseen: "no node lags here; thaw_lagging_total shows one that does"},
		"forwarding protects nothing on a secondary":     {unseen: "no node lags here; thaw_lagging_total shows one that does"},
		"no right to events":                             {metrics: rereads, status: `"listening":false`},
		"events without the secrets'":                    {metrics: rereads},
		"events of writes and not of deletes":            {metrics: rereads},
		"events of KV version 1 are not heard":           {log: "check the token's policies", metrics: "thaw_origin_refused_total"},
		"standbys that answer reads themselves":          {log: "standbys serve reads themselves", metrics: rereads},
		"OpenBao, which lists folders with metadata":     {log: "standbys serve reads themselves", metrics: rereads},
		"storage without a cursor":                       {metrics: rereads},
		"an address that is a standby's":                 {metrics: rereads},
		"a cache before sys/leader":                      {metrics: rereads},
		"a rate limit on sys/leader":                     {unseen: nothingFails + ": it is not used up"},
		"a rate limit that says so in headers":           {unseen: nothingFails + ": it is not used up"},
		"a rate limit that is used up":                   {log: "a rate limit quota of Vault's is used up", status: `"429":`, metrics: "thaw_origin_refused_total"},
		"a Vault slower than the polls wait":             {status: `"slowest_seconds":`, metrics: "thaw_slow_total"},

		"no memcached":                             {log: "memcached node is out", status: out, metrics: "thaw_memcached_nodes_out"},
		"a memcached whose name does not exist":    {log: "no such host", status: out, metrics: "thaw_memcached_nodes_out"},
		"tls to a memcached without":               {log: "speaks (or does not speak) TLS", status: out, metrics: "thaw_memcached_nodes_out"},
		"no tls to a memcached with":               {log: "speaks (or does not speak) TLS", status: out, metrics: "thaw_memcached_nodes_out"},
		"a memcached certificate of an unknown CA": {log: "unknown authority", status: out, metrics: "thaw_memcached_nodes_out"},
		"a memcached certificate for another name": {log: "not cache.example.com", status: out, metrics: "thaw_memcached_nodes_out"},
		"a Vault where memcached should be":        {log: "memcached node is out", status: out, metrics: "thaw_memcached_nodes_out"},
		"a key for another audience":               {log: "audience=other", status: "the shared cache is off"},
		"a KMS key that is disabled":               {log: "the KMS key is disabled", status: "the shared cache is off"},
		"no way to KMS":                            {log: "reach KMS", status: "the shared cache is off"},
		"a warm-up without an audience":            {log: "set THAW_AUDIENCE as the functions have it"},
		"a default audience outside Lambda":        {log: `, audience \"approle\",\"\",\"\"`},

		"another process on the listener":                 {log: "address already in use"},
		"something that ends connections on the listener": {log: "address already in use"},
		"a dead VAULT_PROXY_ADDR":                         {log: "proxyconnect", status: down, metrics: "thaw_errors_total"},
		"a dead HTTPS_PROXY":                              {log: "proxyconnect", status: down, metrics: "thaw_errors_total"},

		"a bundle whose second certificate is broken":        {unseen: nothingFails},
		"a bundle that is cut off in its second certificate": {unseen: nothingFails},
		"a unix socket in a folder that is missing":          {log: "a folder that thaw may write to"},
		"a file where the unix socket should be":             {log: "a file that is no socket"},
		"another process at the unix socket":                 {log: "another process serves there"},
		"a folder where a secret's file should be":           {log: "VAULT_SECRET_PATH"},
		"a secret's file where nothing can be written":       {log: "/proc/none"},
		"the same, and it is optional":                       {log: "/proc/none"},
		"a token file that is not there":                     {log: "that what writes the token runs", status: `"state":"none"`, metrics: "thaw_errors_total"},
		"a token file that is a folder":                      {log: "is a directory", status: `"state":"none"`, metrics: "thaw_errors_total"},
		"an empty token file":                                {log: "it is empty", status: `"state":"none"`, metrics: "thaw_errors_total"},
		"a token file with more than a token":                {log: "something else than one token", status: `"state":"none"`, metrics: "thaw_errors_total"},
		"a secret id's file that is not there":               {log: "that what writes the secret id runs", status: `"state":"none"`, metrics: "thaw_errors_total"},
		"a JWT of a clock that is two hours ahead":           {log: "the JWT is not valid yet", status: `"state":"none"`, metrics: "thaw_origin_refused_total"},
		"a namespace that does not exist":                    {metrics: `thaw_origin_answers_total{code="404"}`, status: `"404":`},
		"a memcached that takes connections and is silent":   {log: "memcached node is out", status: out, metrics: "thaw_memcached_nodes_out"},
	}
	for _, name := range []string{"HTTP_PROXY", "https_proxy", "VAULT_PROXY_ADDR", "VAULT_HTTP_PROXY"} {
		all[name+" that is thaw's own listener"] = sight{log: "points back at thaw's own listener"}
	}
	return all
}

var addressOf = regexp.MustCompile(`"msg":"serving","addresses":\["([^"]+)"`)

// look starts a thaw with a fault and has it asked for secrets until the fault is
// seen where it should be. It returns what is missing, with all that there was.
func (s *site) look(env, paths []string, want sight) (missing []string, all string) {
	s.t.Helper()
	base := []string{"VAULT_CLIENT_TIMEOUT=3s", "VAULT_MAX_RETRIES=0", "THAW_FILE_TIMEOUT=3s", "THAW_RECHECK=10ms", "THAW_CAPABILITY_REFRESH_INTERVAL=10ms"}
	if !slices.Contains(env, "VAULT_ADDR=http://127.0.0.1:8200") { // thaw's own, by default
		base = append(base, "THAW_LISTEN=127.0.0.1:0")
	}
	p, err := harness.Start(harness.Command{Path: suite.thaw, Args: []string{"proxy"}, Env: append(base, env...)})
	harness.Must(s.t, err)
	defer func() { p.Stop(5 * time.Second) }()
	ended := func() bool {
		select {
		case <-p.Done():
			return true
		default:
			return false
		}
	}
	addr := ""
	harness.Eventually(s.t, 20*time.Second, "the start or the end", func() bool {
		if m := addressOf.FindStringSubmatch(p.Output()); m != nil {
			addr = "http://" + m[1]
		}
		return addr != "" || ended()
	})
	paths = append(paths, "secret/data/"+s.name+"/app")
	for until := time.Now().Add(15 * time.Second); ; {
		status, metrics := "", ""
		if addr != "" {
			for _, path := range paths {
				s.get(addr + "/v1/" + path)
			}
			status, metrics = s.get(addr+"/proxy/v1/status"), s.get(addr+"/proxy/v1/metrics")
		}
		missing = want.missing(p.Output(), status, metrics)
		if len(missing) == 0 || addr == "" || time.Now().After(until) {
			return missing, p.Output() + "\n" + status + "\n" + metrics
		}
	}
}

// missing says what of the sight is not there.
func (w sight) missing(log, status, metrics string) (all []string) {
	if !strings.Contains(log, w.log) {
		all = append(all, "log: "+w.log)
	}
	if !strings.Contains(status, w.status) || w.status == `"foreign":` && strings.Contains(status, `"foreign":0,`) {
		all = append(all, "status: "+w.status)
	}
	if w.metrics != "" && (!strings.Contains(metrics, "\n"+w.metrics+" ") || strings.Contains(metrics, "\n"+w.metrics+" 0\n")) {
		all = append(all, "metrics: "+w.metrics)
	}
	return all
}

func (s *site) get(url string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	harness.Must(s.t, err)
	res, err := http.DefaultClient.Do(req)
	harness.Must(s.t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	harness.Must(s.t, err)
	return string(body)
}

// TestEachPlantedFaultIsSeenWithoutTheDoctor: in the log, the status or the
// metrics, or there is a reason why it cannot be.
func TestEachPlantedFaultIsSeenWithoutTheDoctor(t *testing.T) {
	t.Parallel()
	all := sights()
	for _, f := range faults() {
		want, known := all[f.name]
		delete(all, f.name)
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			if seen := want.log+want.status+want.metrics != ""; !known || seen == (want.unseen != "") {
				t.Fatal("nobody says where it is seen, or why not")
			}
			if want.unseen != "" {
				return
			}
			s := newSite(t)
			env, paths := f.plant(s)
			missing, seen := s.look(env, paths, want)
			if len(missing) > 0 {
				t.Errorf("not seen: %q in\n%s", missing, seen)
			}
			for _, no := range append([]string{mark}, s.hide...) {
				if no != "" && strings.Contains(seen, no) {
					t.Error("a secret is shown")
				}
			}
		})
	}
	if len(all) > 0 {
		t.Errorf("there are no such faults: %q", slices.Collect(maps.Keys(all)))
	}
}
