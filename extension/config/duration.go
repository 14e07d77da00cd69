package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

var (
	errDuration  = errors.New("not a duration")
	errNegative  = errors.New("must not be negative")
	errTooLarge  = errors.New("too large")
	errNotNumber = errors.New("not a whole number")
)

// parseDuration reads a duration as Vault does: "5m", "1h30m", "1d", and a bare
// number is seconds. Unlike Vault it refuses negative ones.
// https://pkg.go.dev/github.com/hashicorp/go-secure-stdlib/parseutil#ParseDurationSecond
func parseDuration(v string) (time.Duration, error) {
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		return times(n, time.Second)
	} else if errors.Is(err, strconv.ErrRange) {
		return 0, errTooLarge
	}
	if days, ok := strings.CutSuffix(v, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 64)
		switch {
		case errors.Is(err, strconv.ErrRange):
			return 0, errTooLarge
		case err != nil:
			return 0, errDuration
		}
		return times(n, 24*time.Hour)
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		return 0, errDuration
	}
	if d < 0 {
		return 0, errNegative
	}
	return d, nil
}

// times is n*unit, checked.
func times(n int64, unit time.Duration) (time.Duration, error) {
	if n < 0 {
		return 0, errNegative
	}
	if n > math.MaxInt64/int64(unit) {
		return 0, errTooLarge
	}
	return time.Duration(n) * unit, nil
}

// durationText writes d as a user would: "1d", "5m", "500ms".
func durationText(d time.Duration) string {
	switch {
	case d == 0:
		return "0"
	case d%(24*time.Hour) == 0:
		return strconv.FormatInt(int64(d/(24*time.Hour)), 10) + "d"
	case d%time.Hour == 0:
		return strconv.FormatInt(int64(d/time.Hour), 10) + "h"
	case d%time.Minute == 0:
		return strconv.FormatInt(int64(d/time.Minute), 10) + "m"
	}
	return d.String()
}

// parseSize reads a number of bytes: plain, or with KiB, MiB, GiB or K, M, G
// (all powers of 1024) in any case.
func parseSize(v string) (int64, error) {
	digits := 0
	for digits < len(v) && v[digits] >= '0' && v[digits] <= '9' {
		digits++
	}
	if digits == 0 {
		if strings.HasPrefix(v, "-") {
			return 0, errNegative
		}
		return 0, errors.New("not a size")
	}
	n, err := strconv.ParseInt(v[:digits], 10, 64)
	if err != nil {
		return 0, errTooLarge
	}
	shift := 0
	switch unit := strings.ToLower(strings.TrimSpace(v[digits:])); unit {
	case "", "b":
	case "k", "kib":
		shift = 10
	case "m", "mib":
		shift = 20
	case "g", "gib":
		shift = 30
	case "kb", "mb", "gb":
		return 0, errors.New("KB, MB and GB mean 1000s to some and 1024s to others: write KiB, MiB or GiB")
	default:
		return 0, errors.New("not a size")
	}
	if n > math.MaxInt64>>shift {
		return 0, errTooLarge
	}
	return n << shift, nil
}

// sizeText writes n as a user would: "16MiB".
func sizeText(n int64) string {
	switch {
	case n == 0:
		return "0"
	case n%(1<<30) == 0:
		return strconv.FormatInt(n>>30, 10) + "GiB"
	case n%(1<<20) == 0:
		return strconv.FormatInt(n>>20, 10) + "MiB"
	case n%(1<<10) == 0:
		return strconv.FormatInt(n>>10, 10) + "KiB"
	}
	return strconv.FormatInt(n, 10)
}

// parseBool is strconv.ParseBool without regard to case.
func parseBool(v string) (bool, error) {
	b, err := strconv.ParseBool(strings.ToLower(v))
	if err != nil {
		return false, errors.New("not true or false")
	}
	return b, nil
}
