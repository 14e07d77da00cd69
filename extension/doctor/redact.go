package doctor

import (
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/thaw-project/thaw/extension/config"
)

// redactor cuts secrets out of texts: the last line of defence, since no
// finding is meant to hold any.
type redactor struct{ secrets []string }

// shortest is the length under which a value is left: cutting it out of every
// word would tell more than it hides.
const shortest = 6

func (r *redactor) also(values ...string) {
	for _, v := range values {
		if v = strings.TrimSpace(v); len(v) >= shortest && !slices.Contains(r.secrets, v) {
			r.secrets = append(r.secrets, v)
		}
	}
	// The longest first: a secret may hold another.
	slices.SortFunc(r.secrets, func(a, b string) int { return len(b) - len(a) })
}

// learn takes every secret of the configuration and of the environment.
func (r *redactor) learn(cfg config.Config, azure *config.AzureSupport, environ []string) {
	secret := map[string]bool{"AWS_SECRET_ACCESS_KEY": true, "AWS_SESSION_TOKEN": true}
	for _, s := range config.Settings(azure) {
		secret[s.Name] = secret[s.Name] || s.Secret
	}
	aws := cfg.Platform.AWS
	all := []config.Secret{cfg.Platform.Azure.IdentityHeader, cfg.Auth.Token, cfg.Auth.SecretID, cfg.LocalToken, cfg.CacheKey, aws.SecretAccessKey, aws.SessionToken, aws.CredentialsAuth}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if secret[name] || secret[strings.ToUpper(name)] {
			all = append(all, config.Secret(value))
		}
	}
	for _, a := range cfg.Warm.Audiences {
		all = append(all, a.Key)
	}
	for _, one := range all {
		r.also(append(strings.Split(string(one), ","), string(one))...)
	}
	for _, values := range cfg.Headers {
		r.also(values...)
	}
}

// clean cuts secrets out of s, and what a terminal would obey: a part of it may
// be the other end's words.
func (r *redactor) clean(s string) string {
	s = strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, s)
	for _, secret := range r.secrets {
		s = strings.ReplaceAll(s, secret, "[hidden]")
	}
	// A token of Vault's, wherever it came from.
	return regexp.MustCompile(`hv[sbr]\.[A-Za-z0-9_.-]{8,}`).ReplaceAllLiteralString(s, "[hidden]")
}
