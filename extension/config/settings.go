package config

import (
	"cmp"
	"errors"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Setting is one variable as users see it: a field of a draft, whose tag is the
// variable, "=" and its default if it has one, a blank, and what is allowed with its
// bounds. The tag's key says who sets it and where: users (env), and those of
// thaw-azure (azure); Lambda and AWS (lambda), and Azure Functions (functions). The
// documentation has what the field's comment says (pages_test.go).
type Setting struct {
	Name     string // the variable
	Default  string // as a user would write it; empty: none
	Type     string // what is allowed, with its bounds
	Secret   bool   // the value is never printed
	Platform bool   // set by the platform, not by the user
	Azure    bool   // read by thaw-azure only

	to any // where the value goes: see assign
}

// Settings lists every variable that Load reads, with those of thaw-azure if azure is
// given.
func Settings(azure *AzureSupport) []Setting {
	return slices.DeleteFunc(table(&draft{}, azure), func(s Setting) bool { return s.Azure && azure == nil })
}

// table is every setting, with the places in d that they set. It is built when
// asked for: nothing of it is kept.
func table(d *draft, azure *AzureSupport) []Setting {
	parse := parsers(d)
	if azure != nil {
		maps.Copy(parse, azure.parsers(d))
	}
	return settingsOf(reflect.ValueOf(d).Elem(), parse, make([]Setting, 0, 144))
}

// settingsOf appends the settings that a struct has fields for.
func settingsOf(v reflect.Value, parse map[string]any, all []Setting) []Setting {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		kind, quoted, _ := strings.Cut(string(field.Tag), ":")
		if kind == "" {
			if field.Type.Kind() == reflect.Struct {
				all = settingsOf(v.Field(i), parse, all)
			}
			continue
		}
		text, _ := strconv.Unquote(quoted)
		text, allowed, _ := strings.Cut(text, " ")
		name, def, _ := strings.Cut(text, "=")
		s := Setting{Name: name, Default: def, Type: allowed, Platform: kind == "lambda" || kind == "functions", Azure: kind == "azure" || kind == "functions"}
		switch to, ok := parse[name]; {
		case ok:
			s.to = to
		case field.IsExported():
			s.to = v.Field(i).Addr().Interface()
		default:
			s.to = reflect.New(field.Type).Interface()
		}
		switch s.to.(type) {
		case *bool:
			s.Type = "true or false"
		case *Secret, hidden:
			s.Secret = true
		}
		all = append(all, s)
	}
	return all
}

// parsers are those of settings that no type of field says all of. The others are
// text that a name, a path or an address may be; a Secret that a header may hold; true
// or false; a number, a size or a duration in its bounds, where a whole number that is a
// length of time is one of minutes; or, where the field's type is
// a kind of text of its own, one of the words that are allowed.
func parsers(d *draft) map[string]any {
	aws := &d.Platform.AWS
	return map[string]any{
		"THAW_READS":                       is(&d.StandbyReads, "standby"),
		"VAULT_NAMESPACE":                  into(&d.Namespace, parseNamespace),
		"VAULT_CACERT_BYTES":               checked(&d.TLS.CACertPEM, checkPEM),
		"VAULT_HEADERS":                    hidden(into(&d.Headers, parseHeaders)),
		"VAULT_RATE_LIMIT":                 d.parseRateLimit,
		"THAW_ENFORCE_CONSISTENCY":         word(&d.EnforceConsistency),
		"THAW_WHEN_INCONSISTENT":           word(&d.WhenInconsistent),
		"THAW_CONSISTENCY_SCOPE":           word(&d.ConsistencyScope),
		"THAW_EVENTS":                      is(&d.Events, "auto"),
		"VAULT_AUTH_PROVIDER":              into(&d.Auth.Mount, parseMount),
		"VAULT_IAM_SERVER_ID":              checked(&d.Auth.ServerID, checkHeaderValue),
		"VAULT_STS_ENDPOINT_REGION":        checked(&d.Auth.STSRegion, checkRegion),
		"VAULT_ASSUMED_ROLE_ARN":           checked(&d.Auth.AssumeRole, checkRoleARN),
		"THAW_LISTEN":                      into(&d.Listeners, parseListen),
		"THAW_ALLOWED_HOSTS":               into(&d.AllowedHosts, listOf(parseHost)),
		"VAULT_LOG_LEVEL":                  choice(func(v string) { d.LogLevel = levelOf(v) }),
		"THAW_EMF":                         d.parseEMF,
		"THAW_UNKNOWN":                     is(&d.WarnUnknown, "warn"),
		"VAULT_DEFAULT_CACHE_ENABLED":      into(&d.CacheDefault, parseCacheDefault),
		"THAW_KV_MOUNTS":                   into(&d.KVMounts, parseKVMounts),
		"THAW_NO_CACHE_PATHS":              into(&d.NoCachePaths, listOf(pattern)),
		"THAW_CAPABILITY_REFRESH_BEHAVIOR": is(&d.Pessimistic, "pessimistic"),
		"THAW_PREFETCH":                    into(&d.Prefetch, listOf(prefetchPath)),
		"THAW_INIT":                        is(&d.NoInit, "off"),
		"THAW_MEMCACHED":                   d.parseMemcached,
		"THAW_CACHE_KEY":                   hidden(checked(&d.CacheKey, checkCacheKeys)),
		"THAW_CACHE_KEY_KMS":               hidden(into(&d.CacheKeyKMS, parseWrapped)),
		"THAW_NO_SHARE_PATHS":              into(&d.NoSharePaths, listOf(pattern)),
		"CACHE_TTL":                        checkLine, // see resolveShared
		"THAW_DUMP":                        checked(&d.Warm.Dump, checkDump),
		"THAW_WARM_PATHS":                  into(&d.Warm.Paths, prefixes),
		"THAW_WARM_AUDIENCES":              hidden(into(&d.Warm.Audiences, parseWarmAudiences)),
		"AWS_LAMBDA_INITIALIZATION_TYPE":   checked(&d.Platform.InitType, checkLine),
		"AWS_REGION":                       checked(&d.Platform.Region, checkRegion),
		"AWS_DEFAULT_REGION":               checked(&d.DefaultRegion, checkRegion),
		"AWS_STS_REGIONAL_ENDPOINTS":       is(&aws.RegionalSTS, "regional"),
	}
}

// Places that a value can go to, besides pointers and functions that parse.
type (
	hidden func(v string) error // parses what is never shown
	choice func(v string)       // takes one of the words that are allowed
)

// into parses a value into a field.
func into[T any](to *T, parse func(string) (T, error)) func(string) error {
	return func(v string) error {
		got, err := parse(v)
		if err == nil {
			*to = got
		}
		return err
	}
}

// checked is for a value that goes into a field as it is, if check takes it.
func checked[T ~string](to *T, check func(string) error) func(string) error {
	return into(to, func(v string) (T, error) { return T(v), check(v) })
}

// word is for one of the words that are allowed.
func word[T ~string](to *T) choice { return func(v string) { *to = T(v) } }

// is is for a choice that comes down to one of its words.
func is(to *bool, yes string) choice { return func(v string) { *to = v == yes } }

// assign parses a value as its place and what is allowed say.
func assign(to any, allowed, v string) error {
	switch to := to.(type) {
	case func(string) error:
		return to(v)
	case hidden:
		return to(v)
	case choice:
		got, err := chosen(v, allowed)
		if err == nil {
			to(got)
		}
		return err
	case *string:
		return checked(to, checkLine)(v)
	case *Secret:
		return checked(to, checkHeaderValue)(v)
	case *bool:
		return into(to, parseBool)(v)
	}
	field := reflect.ValueOf(to).Elem()
	if field.Kind() == reflect.String {
		got, err := chosen(v, allowed)
		if err == nil {
			field.SetString(got)
		}
		return err
	}
	n, err := quantity(v, allowed)
	if _, length := to.(*time.Duration); length && strings.HasPrefix(allowed, "whole number") {
		n *= int64(time.Minute)
	}
	if err == nil {
		field.SetInt(n)
	}
	return err
}

// words are those of "a, b or c".
func words(allowed string) []string {
	return strings.Split(strings.Replace(allowed, " or ", ", ", 1), ", ")
}

// chosen finds a word among those that are allowed, in any case.
func chosen(v, allowed string) (string, error) {
	options := words(allowed)
	if i := slices.IndexFunc(options, func(option string) bool { return strings.EqualFold(v, option) }); i >= 0 {
		return options[i], nil
	}
	near := nearest(strings.ToLower(v), options)
	return "", cmp.Or(errIf(near != "", `did you mean "`+near+`"?`), errors.New("unknown"))
}

// quantity reads a number as "duration from 1s to 1h" and its like allow.
func quantity(v, allowed string) (int64, error) {
	kind, bounds, _ := strings.Cut(allowed, " from ")
	lo, hi, _ := strings.Cut(bounds, " to ")
	n, err := number(kind, v)
	least, _ := number(kind, lo)
	most, _ := number(kind, hi)
	return n, cmp.Or(err, errIf(n < least || n > most, "out of range"))
}

// number reads nanoseconds, bytes or a whole number.
func number(kind, v string) (int64, error) {
	switch kind {
	case "duration":
		d, err := parseDuration(v)
		return int64(d), err
	case "bytes":
		return parseSize(v)
	}
	n, err := strconv.ParseInt(v, 10, 64)
	return n, errIf(err != nil, "not a whole number")
}

var (
	errDuration = errors.New("not a duration")
	errNegative = errors.New("must not be negative")
	errTooLarge = errors.New("too large")
)

// parseDuration reads a duration as Vault does: "5m", "1h30m", "1d", and a bare
// number is seconds. Unlike Vault it refuses negative ones.
// https://pkg.go.dev/github.com/hashicorp/go-secure-stdlib/parseutil#ParseDurationSecond
func parseDuration(v string) (time.Duration, error) {
	number, unit := v, time.Second
	if days, ok := strings.CutSuffix(v, "d"); ok {
		number, unit = days, 24*time.Hour
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if errors.Is(err, strconv.ErrRange) || n > math.MaxInt64/int64(unit) {
		return 0, errTooLarge
	}
	d := time.Duration(n) * unit
	if err != nil {
		d, err = time.ParseDuration(v)
	}
	switch {
	case err != nil:
		return 0, errDuration
	case n < 0 || d < 0:
		return 0, errNegative
	}
	return d, nil
}

// parseSize reads a number of bytes: plain, or with KiB, MiB, GiB or K, M, G
// (all powers of 1024) in any case.
func parseSize(v string) (int64, error) {
	digits := len(v) - len(strings.TrimLeft(v, "0123456789"))
	unit := strings.ToLower(strings.TrimSpace(v[digits:]))
	shift, ok := map[string]int{"": 0, "b": 0, "k": 10, "kib": 10, "m": 20, "mib": 20, "g": 30, "gib": 30}[unit]
	switch {
	case strings.HasPrefix(v, "-"):
		return 0, errNegative
	case digits > 0 && (unit == "kb" || unit == "mb" || unit == "gb"):
		return 0, errors.New("KB, MB and GB mean 1000s to some and 1024s to others: write KiB, MiB or GiB")
	case digits == 0 || !ok:
		return 0, errors.New("not a size")
	}
	n, err := strconv.ParseInt(v[:digits], 10, 64)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, errTooLarge
	}
	return n << shift, nil
}

// parseBool is strconv.ParseBool without regard to case.
func parseBool(v string) (bool, error) {
	b, err := strconv.ParseBool(strings.ToLower(v))
	return b, errIf(err != nil, "not true or false")
}

func (d *draft) parseEMF(v string) error {
	b, err := parseBool(v)
	if d.EMFAll = strings.EqualFold(v, "all"); d.EMFAll {
		b, err = true, nil
	}
	d.EMF = b
	return err
}

func parseCacheDefault(v string) (CacheDefault, error) {
	b, err := parseBool(v)
	return CacheDefault(strconv.FormatBool(b)), err
}
