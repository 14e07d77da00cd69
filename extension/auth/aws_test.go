package auth

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/fakes/sts"
)

// awsScene is a scene with an STS, and a function's role in it.
type awsScene struct {
	*scene
	sts *sts.Server
	url string // of the STS
	arn string // of the role
}

// playAWS makes a scene in which the aws login works with keys from the
// environment; change alters the options.
func playAWS(t *testing.T, region string, change func(*Options, *awsScene)) *awsScene {
	t.Helper()
	a := &awsScene{}
	a.scene = play(t, func(o *Options) {
		a.sts = sts.New(sts.Options{Region: region, Now: o.Now})
		server := httptest.NewServer(a.sts)
		t.Cleanup(server.Close)
		a.url = server.URL
		o.Origin.(*vault).sts = server.URL
		a.arn = a.sts.Role("/service-role/", "fn")
		k := a.sts.Session("fn", "app", 12*time.Hour)
		o.Auth = config.Auth{Method: config.AuthAWS, Role: "app", ServerID: "vault.example", ExpiryGrace: 10 * time.Second}
		o.Platform.AWS = config.AWS{AccessKeyID: k.AccessKeyID, SecretAccessKey: config.Secret(k.SecretAccessKey), SessionToken: config.Secret(k.SessionToken)}
		o.Platform.Region = "eu-west-1"
		if change != nil {
			change(o, a)
		}
	})
	a.vault.change(func() { a.vault.serverID = "vault.example" })
	return a
}

func TestAWSLoginIsSignedForTheGlobalEndpoint(t *testing.T) {
	t.Parallel()
	a := playAWS(t, "us-east-1", nil)
	a.token(t)
	if n := a.sts.Served("GetCallerIdentity"); n != 1 {
		t.Errorf("%d calls of STS by Vault, want 1", n)
	}
}

func TestAWSLoginIsSignedForTheConfiguredRegion(t *testing.T) {
	t.Parallel()
	a := playAWS(t, "eu-central-1", func(o *Options, _ *awsScene) { o.Auth.STSRegion = "eu-central-1" })
	a.token(t)
}

func TestSTSEndpointsFollowRegionPartitionAndFIPS(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, sts, own string
		aws            config.AWS
		host, region   string
	}{
		{"nothing is set", "", "", config.AWS{}, "sts.amazonaws.com", "us-east-1"},
		{"only the process's region", "", "eu-west-1", config.AWS{}, "sts.amazonaws.com", "us-east-1"},
		{"configured", "eu-central-1", "eu-west-1", config.AWS{}, "sts.eu-central-1.amazonaws.com", "eu-central-1"},
		{"configured us-east-1", "us-east-1", "", config.AWS{}, "sts.us-east-1.amazonaws.com", "us-east-1"},
		{"regional", "", "eu-west-1", config.AWS{RegionalSTS: true}, "sts.eu-west-1.amazonaws.com", "eu-west-1"},
		{"regional, unknown region", "", "", config.AWS{RegionalSTS: true}, "sts.amazonaws.com", "us-east-1"},
		{"configured and regional", "eu-central-1", "eu-west-1", config.AWS{RegionalSTS: true}, "sts.eu-central-1.amazonaws.com", "eu-central-1"},
		{"GovCloud", "", "us-gov-west-1", config.AWS{}, "sts.us-gov-west-1.amazonaws.com", "us-gov-west-1"},
		{"GovCloud, FIPS", "", "us-gov-east-1", config.AWS{UseFIPS: true}, "sts.us-gov-east-1.amazonaws.com", "us-gov-east-1"},
		{"GovCloud, configured", "us-gov-east-1", "us-gov-west-1", config.AWS{}, "sts.us-gov-east-1.amazonaws.com", "us-gov-east-1"},
		{"China", "", "cn-north-1", config.AWS{}, "sts.cn-north-1.amazonaws.com.cn", "cn-north-1"},
		{"China, configured", "cn-northwest-1", "cn-north-1", config.AWS{}, "sts.cn-northwest-1.amazonaws.com.cn", "cn-northwest-1"},
		{"FIPS", "", "us-west-2", config.AWS{UseFIPS: true}, "sts-fips.us-west-2.amazonaws.com", "us-west-2"},
		{"FIPS, unknown region", "", "", config.AWS{UseFIPS: true}, "sts-fips.us-east-1.amazonaws.com", "us-east-1"},
		{"FIPS, configured", "us-east-2", "us-west-2", config.AWS{UseFIPS: true}, "sts-fips.us-east-2.amazonaws.com", "us-east-2"},
		{"ISO", "", "us-iso-east-1", config.AWS{}, "sts.us-iso-east-1.c2s.ic.gov", "us-iso-east-1"},
		{"ISO-B", "", "us-isob-east-1", config.AWS{}, "sts.us-isob-east-1.sc2s.sgov.gov", "us-isob-east-1"},
		{"own endpoint", "", "eu-west-1", config.AWS{EndpointSTS: "https://vpce-1.sts.eu-west-1.vpce.amazonaws.com"}, "vpce-1.sts.eu-west-1.vpce.amazonaws.com", "eu-west-1"},
		{"own endpoint, unknown region", "", "", config.AWS{EndpointSTS: "http://127.0.0.1:5000"}, "127.0.0.1:5000", "us-east-1"},
		{"own endpoint, configured region", "eu-north-1", "eu-west-1", config.AWS{EndpointSTS: "https://sts.example"}, "sts.example", "eu-north-1"},
		{"own endpoint is the global one", "", "eu-west-1", config.AWS{EndpointSTS: "https://sts.amazonaws.com/"}, "sts.amazonaws.com", "us-east-1"},
	} {
		e, err := newSTSEndpoint(Options{Config: config.Config{Auth: config.Auth{STSRegion: c.sts}, Platform: config.Platform{Region: c.own, AWS: c.aws}}})
		if err != nil || e.url.Host != c.host || e.region != c.region || e.url.Path != "/" {
			t.Errorf("%s: got %+v, %v; want %s, %s", c.name, e, err, c.host, c.region)
		}
	}
}

func TestAWSErrorsSayWhatToCheck(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Options, *awsScene)
		vault  func(*vault)
		want   string
	}{
		"signed for another region": {change: func(o *Options, _ *awsScene) { o.Auth.STSRegion = "eu-central-1" }, want: "VAULT_STS_ENDPOINT_REGION"},
		"no server id":              {change: func(o *Options, _ *awsScene) { o.Auth.ServerID = "" }, want: "VAULT_IAM_SERVER_ID"},
		"another server id":         {change: func(o *Options, _ *awsScene) { o.Auth.ServerID = "other" }, want: "VAULT_IAM_SERVER_ID"},
		"another principal":         {vault: func(v *vault) { v.bound = "arn:aws:iam::1:role/other" }, want: "bound_iam_principal_arn"},
		"another role":              {change: func(o *Options, _ *awsScene) { o.Auth.Role = "nope" }, want: "VAULT_AUTH_ROLE"},
		"unknown keys":              {change: func(o *Options, _ *awsScene) { o.Platform.AWS.AccessKeyID = "AKIAUNKNOWN" }, want: "AWS credentials of this function"},
		"STS away":                  {vault: func(v *vault) { v.sts = "http://127.0.0.1:1" }, want: "sts_endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := playAWS(t, "us-east-1", c.change)
			if c.vault != nil {
				a.vault.change(func() { c.vault(a.vault) })
			}
			_, err := a.Token(t.Context())
			var e *LoginError
			if !errors.As(err, &e) || e.Status != 400 || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestAWSKeysAndSignaturesAreNeverShown(t *testing.T) {
	t.Parallel()
	var secrets []string
	a := playAWS(t, "us-east-1", func(o *Options, _ *awsScene) {
		o.Auth.STSRegion = "eu-central-1"
		secrets = []string{string(o.Platform.AWS.SecretAccessKey), string(o.Platform.AWS.SessionToken)}
	})
	a.vault.echo = fmt.Sprintf("quoting %s and %s: ", secrets[0], secrets[1][20:])
	_, err := a.Token(t.Context())
	if err == nil || !strings.Contains(err.Error(), hidden) {
		t.Fatalf("got %v", err)
	}
	for _, s := range secrets {
		for i := 0; i+secretPart <= len(s); i++ {
			if strings.Contains(err.Error(), s[i:i+secretPart]) {
				t.Fatalf("%q is shown: %v", s[i:i+secretPart], err)
			}
		}
	}
}

func TestTheAssumedRoleLogsInAndItsKeysAreKeptUntilTheyExpire(t *testing.T) {
	t.Parallel()
	a := playAWS(t, "us-east-1", func(o *Options, a *awsScene) {
		target := a.sts.Role("/", "target")
		a.sts.Trust("target", a.arn)
		o.Auth.AssumeRole = target
		o.Platform.AWS.EndpointSTS = a.url
		o.Platform.Region = "us-east-1"
		o.Origin.(*vault).bound = "arn:aws:sts::123456789012:assumed-role/target/vault_auth"
	})
	login := func() {
		t.Helper()
		a.Forget()
		a.token(t)
	}
	for _, step := range []struct {
		after time.Duration
		want  int // AssumeRole calls so far
	}{{0, 1}, {54 * time.Minute, 1}, {time.Minute, 2}, {time.Minute, 2}, {3 * time.Hour, 3}} {
		a.clock.move(step.after)
		login()
		if n := a.sts.Served("AssumeRole"); n != step.want {
			t.Errorf("%d calls of AssumeRole, want %d", n, step.want)
		}
	}
}

func TestARoleThatDoesNotTrustUsIsNamed(t *testing.T) {
	t.Parallel()
	a := playAWS(t, "us-east-1", func(o *Options, a *awsScene) {
		o.Auth.AssumeRole = a.sts.Role("/", "target")
		o.Platform.AWS.EndpointSTS, o.Platform.Region = a.url, "us-east-1"
	})
	_, err := a.Token(t.Context())
	for _, want := range []string{"VAULT_ASSUMED_ROLE_ARN", ":role/target", "AccessDenied", "not authorized"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
}

// endpoint is a credentials endpoint, as SnapStart has one.
func endpoint(t *testing.T, authorization *atomic.Value, keys func() sts.Keys) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != authorization.Load() {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"code":"InvalidAuthToken","message":"no: %s"}`, r.Header.Get("Authorization"))
			return
		}
		k := keys()
		fmt.Fprintf(w, `{"AccessKeyId":%q,"SecretAccessKey":%q,"Token":%q,"Expiration":%q}`,
			k.AccessKeyID, k.SecretAccessKey, k.SessionToken, k.Expires.Format(time.RFC3339))
	}))
	t.Cleanup(s.Close)
	return s
}

func TestKeysOfTheCredentialsEndpointAreKeptUntilShortlyBeforeTheirEnd(t *testing.T) {
	t.Parallel()
	var asked, broken atomic.Int32
	var authorization atomic.Value
	authorization.Store("Bearer endpoint-token-1")
	a := playAWS(t, "us-east-1", func(o *Options, a *awsScene) {
		e := endpoint(t, &authorization, func() sts.Keys {
			asked.Add(1)
			if broken.Load() > 0 {
				return sts.Keys{}
			}
			return a.sts.Session("fn", "app", time.Hour)
		})
		o.Platform.AWS = config.AWS{CredentialsURI: e.URL + "/v2/keys", CredentialsAuth: "wrong", CredentialsFile: "/auth"}
	})
	a.disk.write("/auth", "Bearer endpoint-token-1\n")
	for _, step := range []struct {
		after  time.Duration
		broken int32
		want   int32
		fails  bool
	}{
		{after: 0, want: 1},
		{after: 54 * time.Minute, want: 1},
		{after: 2 * time.Minute, broken: 1, want: 2},               // the old keys serve on
		{after: 10 * time.Minute, broken: 1, want: 3, fails: true}, // until their end
		{after: time.Second, want: 4},
	} {
		a.clock.move(step.after)
		broken.Store(step.broken)
		a.Forget()
		if _, err := a.Token(t.Context()); (err != nil) != step.fails || asked.Load() != step.want {
			t.Errorf("after %v: %v, asked %d times, want %d", step.after, err, asked.Load(), step.want)
		}
	}
	authorization.Store("Bearer another")
	a.clock.move(2 * time.Hour)
	a.Forget()
	if _, err := a.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "InvalidAuthToken") || strings.Contains(err.Error(), "endpoint-token") {
		t.Errorf("got %v", err)
	}
}

func TestTheCredentialsEndpointMustBeThisHostOrEncrypted(t *testing.T) {
	t.Parallel()
	for uri, ok := range map[string]bool{
		"http://127.0.0.1:9001/v2/keys":   true,
		"http://localhost:9001/":          true,
		"http://[::1]:9001/":              true,
		"http://169.254.170.2/v2":         true,
		"http://169.254.170.23/v1":        true,
		"http://[fd00:ec2::23]/v1":        true,
		"https://keys.example/v1":         true,
		"http://169.254.169.254/latest":   false,
		"http://10.0.0.1/":                false,
		"http://localhost.evil.example/":  false,
		"http://127.0.0.1.evil.example/":  false,
		"http://user:pw@127.0.0.1/":       false,
		"http://[fe80::1%25eth0]/":        false,
		"http://2130706433/":              false,
		"http://[::ffff:127.0.0.1]:9001/": true,
		"http://[::ffff:10.0.0.1]/":       false,
		"file:///etc/passwd":              false,
		"ftp://127.0.0.1/":                false,
		"/v2/keys":                        false,
		"":                                false,
	} {
		if _, err := config.CredentialsURL(uri); (err == nil) != ok {
			t.Errorf("%s: %v", uri, err)
		}
	}
}

func TestTheCredentialsEndpointCannotRedirectOurToken(t *testing.T) {
	t.Parallel()
	leaked := atomic.Bool{}
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { leaked.Store(true) }))
	t.Cleanup(other.Close)
	first := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	t.Cleanup(first.Close)
	a := playAWS(t, "us-east-1", func(o *Options, _ *awsScene) {
		o.Platform.AWS = config.AWS{CredentialsURI: first.URL, CredentialsAuth: "token-of-the-endpoint"}
	})
	if _, err := a.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "status 307") || leaked.Load() {
		t.Errorf("got %v, leaked %v", err, leaked.Load())
	}
}

func FuzzParseAssumed(f *testing.F) {
	f.Add(200, "<Credentials><AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2024-05-06T07:08:09Z</Expiration></Credentials>")
	f.Add(403, "<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
	f.Fuzz(func(t *testing.T, status int, body string) {
		k, err := parseAssumed(status, []byte(body), "secret-secret-secret")
		if err == nil && (!headerSafe(k.AccessKeyID) || !headerSafe(k.SecretAccessKey) || !headerSafe(k.SessionToken) || k.Expires.IsZero() && !strings.Contains(body, "0001-01-01")) {
			t.Errorf("%q became %+v", body, k)
		}
		if err != nil && strings.Contains(err.Error(), "secret-secret") {
			t.Errorf("shows a secret: %v", err)
		}
	})
}
