package config

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Setting is one variable as users see it. The tables of settings in the
// documentation are made of these (pages_test.go).
type Setting struct {
	Name     string // the variable
	Default  string // as a user would write it; empty: none
	Type     string // what is allowed, with its bounds
	Meaning  string // one line
	Secret   bool   // the value is never printed
	Platform bool   // set by the platform, not by the user
	Azure    bool   // read by thaw-azure only
}

// row is a setting as the table has it.
type row struct {
	name, def, allowed string
	to                 any // where the value goes: see assign
	meaning            string
}

// setting is a row with what its group says of it.
type setting struct {
	Setting
	to any
}

// table is every setting, with the places in d that they set. It is built when
// asked for: nothing of it is kept.
func table(d *draft, azure *AzureSupport) []setting {
	all := make([]setting, 0, 136)
	add := func(rows []row, platform, azure bool) {
		for _, r := range rows {
			s := Setting{Name: r.name, Default: r.def, Type: r.allowed, Meaning: r.meaning, Platform: platform, Azure: azure}
			switch r.to.(type) {
			case *bool:
				s.Type = "true or false"
			case *Secret, hidden:
				s.Secret = true
			}
			all = append(all, setting{s, r.to})
		}
	}
	add(userSettings(d), false, false)
	if azure != nil {
		add(azure.settings(d), false, true)
		add(azure.platform(d), true, true)
	}
	add(fileSettings(d), false, false)
	add(platformSettings(d), true, false)
	add(awsSettings(d), false, false)
	return all
}

// Settings lists every variable that Load reads, in the order of the
// documentation, with those of thaw-azure if azure is given.
func Settings(azure *AzureSupport) []Setting {
	var list []Setting
	for _, s := range table(&draft{}, azure) {
		list = append(list, s.Setting)
	}
	return list
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
	unit, n, err := quantity(v, allowed)
	if err != nil {
		return err
	}
	switch to := to.(type) {
	case *int:
		*to = int(n)
	case *int64:
		*to = n
	case *time.Duration:
		*to = time.Duration(n) * unit
	}
	return nil
}

// chosen finds a word among "a, b or c", in any case.
func chosen(v, allowed string) (string, error) {
	options := strings.Split(strings.Replace(allowed, " or ", ", ", 1), ", ")
	if i := slices.IndexFunc(options, func(option string) bool { return strings.EqualFold(v, option) }); i >= 0 {
		return options[i], nil
	}
	near := nearest(strings.ToLower(v), options)
	return "", cmp.Or(errIf(near != "", `did you mean "`+near+`"?`), errors.New("unknown"))
}

// either writes "a, b or c".
func either(words []string) string {
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// quantity reads a number as "duration from 1s to 1h" and its like allow. A
// whole number that is a length of time is one of minutes.
func quantity(v, allowed string) (unit time.Duration, n int64, err error) {
	kind, bounds, _ := strings.Cut(allowed, " from ")
	lo, hi, _ := strings.Cut(bounds, " to ")
	unit, parse := time.Minute, parseNumber
	switch kind {
	case "duration":
		unit, parse = 1, parseNanoseconds
	case "bytes":
		parse = parseSize
	}
	if n, err = parse(v); err != nil {
		return 0, 0, err
	}
	least, _ := parse(lo)
	most, _ := parse(hi)
	return unit, n, errIf(n < least || n > most, "out of range")
}

var (
	errDuration = errors.New("not a duration")
	errNegative = errors.New("must not be negative")
	errTooLarge = errors.New("too large")
)

func parseNumber(v string) (int64, error) {
	n, err := strconv.ParseInt(v, 10, 64)
	return n, errIf(err != nil, "not a whole number")
}

func parseNanoseconds(v string) (int64, error) {
	d, err := parseDuration(v)
	return int64(d), err
}

// parseDuration reads a duration as Vault does: "5m", "1h30m", "1d", and a bare
// number is seconds. Unlike Vault it refuses negative ones.
// https://pkg.go.dev/github.com/hashicorp/go-secure-stdlib/parseutil#ParseDurationSecond
func parseDuration(v string) (time.Duration, error) {
	number, unit := v, time.Second
	if days, ok := strings.CutSuffix(v, "d"); ok {
		number, unit = days, 24*time.Hour
	}
	n, err := strconv.ParseInt(number, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange) || err == nil && n > math.MaxInt64/int64(unit):
		return 0, errTooLarge
	case err == nil && n < 0:
		return 0, errNegative
	case err == nil:
		return time.Duration(n) * unit, nil
	}
	d, err := time.ParseDuration(v)
	switch {
	case err != nil:
		return 0, errDuration
	case d < 0:
		return 0, errNegative
	}
	return d, nil
}

// parseSize reads a number of bytes: plain, or with KiB, MiB, GiB or K, M, G
// (all powers of 1024) in any case.
func parseSize(v string) (int64, error) {
	digits := len(v) - len(strings.TrimLeft(v, "0123456789"))
	if strings.HasPrefix(v, "-") {
		return 0, errNegative
	}
	unit := strings.ToLower(strings.TrimSpace(v[digits:]))
	shift, ok := map[string]int{"": 0, "b": 0, "k": 10, "kib": 10, "m": 20, "mib": 20, "g": 30, "gib": 30}[unit]
	switch {
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

func parseOptional(v string) (*bool, error) {
	b, err := parseBool(v)
	return &b, err
}

func parseCacheDefault(v string) (CacheDefault, error) {
	b, err := parseBool(v)
	return CacheDefault(strconv.FormatBool(b)), err
}
