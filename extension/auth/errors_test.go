package auth

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/thaw-project/thaw/extension/wire"
)

func TestErrorsSayWhatToCheck(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Options, *vault)
		want   []string
	}{
		"no such mount": {func(o *Options, v *vault) { o.Auth.Mount = "other" }, []string{"auth/other", "VAULT_AUTH_PROVIDER", "VAULT_NAMESPACE", "403"}},
		"no namespace":  {func(o *Options, v *vault) { o.Namespace = "team" }, []string{`namespace "team"`, "VAULT_NAMESPACE", "404"}},
		"wrong ids":     {func(o *Options, v *vault) { o.Auth.SecretID = "another-secret-id" }, []string{"invalid role or secret ID", "secret id has not expired", "400"}},
		"sealed":        {func(o *Options, v *vault) { v.down = 503 }, []string{"503", "Vault is sealed", "not able to serve"}},
		"quota":         {func(o *Options, v *vault) { v.down = 429 }, []string{"429", "rate limit"}},
		"the role":      {func(o *Options, v *vault) { o.Auth.Role = "app"; v.down = 500 }, []string{`role "app"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var fake *vault
			s := play(t, func(o *Options) { fake = o.Origin.(*vault); c.change(o, fake) })
			_, err := s.Token(t.Context())
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q lacks %q", err, w)
				}
			}
		})
	}
}

// An origin, or something in between, may quote what it was sent.
func TestErrorsNeverShowASecret(t *testing.T) {
	t.Parallel()
	s := play(t, func(o *Options) { o.Auth.SecretID = "planted-secret-id-7f3a9c" })
	s.vault.echo = "malformed: "
	_, err := s.Token(t.Context())
	if err == nil || !strings.Contains(err.Error(), hidden) {
		t.Fatalf("got %v", err)
	}
	for _, part := range []string{"planted-secret", "7f3a9c", s.vault.roleID} {
		if strings.Contains(err.Error(), part) || strings.Contains(s.log.String(), part) {
			t.Errorf("%q is shown: %v", part, err)
		}
	}
}

func TestQuotesAreShortAndOnOneLine(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a\n\tb\x00c\u2028d":                   "a b c d",
		"x secret-secret-secret y":             "x " + hidden + " y",
		"cut off: secret-secret-s":             "cut off: " + hidden,
		"tail: et-secret-secret":               "tail: " + hidden,
		"secret-secret-secretsecret-secret-s!": hidden + hidden + "!",
		"short part secret-secr":               "short part secret-secr",
		"pin abcd":                             "pin " + hidden,
		"":                                     "",
	} {
		if got := redact(in, "secret-secret-secret", "abcd", "", "x"); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := redact(strings.Repeat("é", 1000)); len(got) > maxReason+3 || !utf8.ValidString(got) {
		t.Errorf("%d bytes, valid %v", len(got), utf8.ValidString(got))
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("text with hvs.secretsecretsecret in it", "hvs.secretsecretsecret")
	f.Add(strings.Repeat("hvs.secretsecret", 400), "hvs.secretsecretsecret")
	f.Fuzz(func(t *testing.T, text, secret string) {
		secret = secret[:min(len(secret), 4<<10)]
		got := redact(text, secret)
		secret = strings.Join(strings.Fields(secret), " ")
		if len(got) > maxReason+3 || strings.ContainsAny(got, "\n\r\x00") {
			t.Errorf("not a short line: %q", got)
		}
		if len(secret) >= 4 && strings.Contains(got, secret) && !strings.Contains(hidden, secret) && !strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }) && !strings.ContainsAny(secret, "[].") {
			t.Errorf("%q shows %q", got, secret)
		}
	})
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"auth":{"client_token":"hvs.x","lease_duration":3600,"renewable":true,"token_policies":["a"],"entity_id":"e"}}`))
	f.Add([]byte(`{"auth":{"client_token":"hvs.x","lease_duration":9223372036854775807}}`))
	f.Add([]byte(`{"auth":{"client_token":"","mfa_requirement":{}}}`))
	f.Add([]byte(`{"data":{"ttl":-1,"creation_ttl":1}}`))
	f.Add([]byte(`{"errors":["permission denied"]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		at := newHand().now()
		for _, read := range []func() (*token, error){
			func() (*token, error) { return fromAuth(body, at) },
			func() (*token, error) { return fromLookup("hvs.x", body, at) },
		} {
			tok, err := read()
			if err != nil {
				continue
			}
			if !headerSafe(tok.value) || tok.life < 0 || tok.ttl < tok.life || tok.identity == "" {
				t.Errorf("%q became %+v", body, tok)
			}
			tok.duty(at.Add(time.Hour), 10*time.Second)
		}
		if r := reason(wire.New(400, nil, body)); len(r) > maxReason+3 {
			t.Errorf("reason of %d bytes", len(r))
		}
		parseKeys(200, body, "")
		parseKeys(500, body, "")
	})
}

func TestAnswersThatAreNoLoginAreRefused(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		"<html>":                          "not Vault's JSON",
		`{}`:                              "no auth block",
		`{"auth":{}}`:                     "no usable client_token",
		`{"auth":{"client_token":"a b"}}`: "no usable client_token",
		`{"auth":{"client_token":"hvs.s3cr3t\n"}}`:                     "no usable client_token",
		`{"auth":{"client_token":"","mfa_requirement":{"x":1}}}`:       "MFA",
		`{"auth":{"client_token":"hvs.s3cr3t","lease_duration":"1h"}}`: "another type",
	} {
		_, err := fromAuth([]byte(body), time.Time{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: got %v, want %q", body, err, want)
		}
	}
}

func TestBatchTokensAreKnownByTypeOrPrefix(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		value, kind string
		want        bool
	}{{"hvs.x", "batch", true}, {"hvb.x", "service", false}, {"hvb.x", "", true}, {"b.x", "", true}, {"s.x", "", false}, {"x", "", false}} {
		if got := isBatch(c.value, c.kind); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
