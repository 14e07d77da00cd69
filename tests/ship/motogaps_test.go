package ship

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// gaps stands before moto and puts into its answers what moto 5.2 takes and
// does not give back, though AWS does. Without it a plan after an apply finds
// changes that are moto's:
//
//   - the description of a security group's rule whose other side is a group
//   - the security groups of a memcached cluster, and its configuration endpoint
//     (https://docs.aws.amazon.com/AmazonElastiCache/latest/APIReference/API_CacheCluster.html)
//   - a function's logging configuration
//     (https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionConfiguration.html)
//
// It remembers what was sent; nothing else is changed.
type gaps struct {
	mu       sync.Mutex
	rules    map[string]string          // guarded by mu; rule id to description
	clusters map[string][]string        // guarded by mu; cluster to its security groups
	logging  map[string]json.RawMessage // guarded by mu; function to LoggingConfig
}

// fillGaps returns the address to use instead of moto's.
func fillGaps(t *testing.T, moto string) string {
	t.Helper()
	u, err := url.Parse(moto)
	if err != nil {
		t.Fatal(err)
	}
	g := &gaps{rules: map[string]string{}, clusters: map[string][]string{}, logging: map[string]json.RawMessage{}}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.Out.Host = r.In.Host // moto tells the service by it, where the credential's scope does not
			r.Out.Header.Del("Accept-Encoding")
		},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(sent))
		answer := httptest.NewRecorder()
		proxy.ServeHTTP(answer, r)
		body := g.mend(r, sent, answer.Body.Bytes())
		for k, v := range answer.Header() {
			if k != "Content-Length" {
				w.Header()[k] = v
			}
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(body)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func (g *gaps) mend(r *http.Request, sent, got []byte) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	if strings.HasPrefix(r.URL.Path, "/2015-03-31/functions") {
		return g.function(r, sent, got)
	}
	form, err := url.ParseQuery(string(sent))
	if err != nil {
		return got
	}
	switch form.Get("Action") {
	case "AuthorizeSecurityGroupIngress", "AuthorizeSecurityGroupEgress":
		if d := form.Get("IpPermissions.1.Groups.1.Description"); d != "" {
			for _, m := range regexp.MustCompile(`<securityGroupRuleId>([^<]+)</securityGroupRuleId>`).FindAllSubmatch(got, -1) {
				g.rules[string(m[1])] = d
			}
		}
	case "DescribeSecurityGroupRules":
		return regexp.MustCompile(`(?s)<item><securityGroupRuleId>([^<]+)</securityGroupRuleId>.*?</item>`).ReplaceAllFunc(got, func(item []byte) []byte {
			id := regexp.MustCompile(`<securityGroupRuleId>([^<]+)<`).FindSubmatch(item)[1]
			if d := g.rules[string(id)]; d != "" && !bytes.Contains(item, []byte("<description>")) {
				return bytes.Replace(item, []byte("<tagSet"), []byte("<description>"+d+"</description><tagSet"), 1)
			}
			return item
		})
	case "CreateCacheCluster", "DescribeCacheClusters":
		if id := form.Get("CacheClusterId"); form.Get("Action") == "CreateCacheCluster" {
			for k, v := range form {
				if strings.HasPrefix(k, "SecurityGroupIds.") {
					g.clusters[id] = append(g.clusters[id], v...)
				}
			}
		}
		return regexp.MustCompile(`<CacheClusterId>([^<]+)</CacheClusterId>`).ReplaceAllFunc(got, func(name []byte) []byte {
			id := regexp.MustCompile(`>([^<]+)<`).FindSubmatch(name)[1]
			var groups strings.Builder
			for _, sg := range g.clusters[string(id)] {
				groups.WriteString("<member><SecurityGroupId>" + sg + "</SecurityGroupId><Status>active</Status></member>")
			}
			return []byte(string(name) + "<SecurityGroups>" + groups.String() + "</SecurityGroups><ConfigurationEndpoint><Address>" +
				string(id) + ".abc123.cfg.euc1.cache.amazonaws.com</Address><Port>11211</Port></ConfigurationEndpoint>")
		})
	}
	return got
}

// function handles Lambda's functions and their configurations.
func (g *gaps) function(r *http.Request, sent, got []byte) []byte {
	var order struct {
		FunctionName  string
		LoggingConfig json.RawMessage
	}
	name, rest, _ := strings.Cut(strings.Trim(strings.TrimPrefix(r.URL.Path, "/2015-03-31/functions"), "/"), "/")
	if (r.Method == http.MethodPost && name == "" || r.Method == http.MethodPut && rest == "configuration") && json.Unmarshal(sent, &order) == nil {
		if name == "" {
			name = order.FunctionName
		}
		if order.LoggingConfig != nil {
			g.logging[name] = order.LoggingConfig
		}
	}
	known := g.logging[name]
	var answer map[string]json.RawMessage
	if known == nil || json.Unmarshal(got, &answer) != nil || answer == nil {
		return got
	}
	var err error
	var inner map[string]json.RawMessage
	switch {
	case json.Unmarshal(answer["Configuration"], &inner) == nil && inner["FunctionArn"] != nil:
		inner["LoggingConfig"] = known
		if answer["Configuration"], err = json.Marshal(inner); err != nil {
			return got
		}
	case answer["FunctionArn"] != nil && answer["FunctionName"] != nil:
		answer["LoggingConfig"] = known
	default:
		return got
	}
	out, err := json.Marshal(answer)
	if err != nil {
		return got
	}
	return out
}
