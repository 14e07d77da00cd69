package config

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// draft is a Config while it is put together, with what a Config doesn't keep.
type draft struct {
	Config

	thawAddrs, vleAddr, vaultAddr string
	readAddrs                     string
	requireHeader                 *bool
	mount                         string
	secretPath, secretFile        string
	httpProxy, httpsProxy         string
	noProxy                       string
	vaultProxy, vaultHTTPProxy    string
	endpoint                      string
	ignoreEndpoints               bool
	relativeURI                   string
	defaultRegion                 string
	configFile                    string
	cacheTTL                      string
	legacyPort                    int
	managedEnvironment            string
}

// duration is a setting of a length of time.
func duration(name, def string, lo, hi time.Duration, at func(*draft) *time.Duration, meaning string) setting {
	return setting{
		Setting: Setting{Name: name, Default: def, Meaning: meaning},
		kind:    boundDuration, lo: int64(lo), hi: int64(hi),
		parse: func(d *draft, v string) error {
			got, err := parseDuration(v)
			if err != nil {
				return err
			}
			if got < lo || got > hi {
				return errors.New("out of range")
			}
			*at(d) = got
			return nil
		},
	}
}

// size is a setting of a number of bytes.
func size(name, def string, lo, hi int64, set func(*draft, int64), meaning string) setting {
	return setting{
		Setting: Setting{Name: name, Default: def, Meaning: meaning},
		kind:    boundSize, lo: lo, hi: hi,
		parse: func(d *draft, v string) error {
			got, err := parseSize(v)
			if err != nil {
				return err
			}
			if got < lo || got > hi {
				return errors.New("out of range")
			}
			set(d, got)
			return nil
		},
	}
}

// number is a setting of a count.
func number(name, def string, lo, hi int, at func(*draft) *int, meaning string) setting {
	return setting{
		Setting: Setting{Name: name, Default: def, Meaning: meaning},
		kind:    boundNumber, lo: int64(lo), hi: int64(hi),
		parse: func(d *draft, v string) error {
			got, err := strconv.Atoi(v)
			if err != nil {
				return errNotNumber
			}
			if got < lo || got > hi {
				return errors.New("out of range")
			}
			*at(d) = got
			return nil
		},
	}
}

// flag is a setting that is true or false.
func flag(name, def string, at func(*draft) *bool, meaning string) setting {
	return setting{
		Setting: Setting{Name: name, Default: def, Type: "true or false", Meaning: meaning},
		parse: func(d *draft, v string) error {
			got, err := parseBool(v)
			if err != nil {
				return err
			}
			*at(d) = got
			return nil
		},
	}
}

// choice is a setting of one of a few words, in any case.
func choice(name, def string, set func(*draft, string), meaning string, options ...string) setting {
	return setting{
		Setting: Setting{Name: name, Default: def, Meaning: meaning},
		options: options,
		parse: func(d *draft, v string) error {
			for _, option := range options {
				if strings.EqualFold(v, option) {
					set(d, option)
					return nil
				}
			}
			if near := nearest(strings.ToLower(v), options); near != "" {
				return errors.New(`did you mean "` + near + `"?`)
			}
			return errors.New("unknown")
		},
	}
}

// text is a setting of free text on one line.
func text(name, kind string, at func(*draft) *string, meaning string) setting {
	return setting{
		Setting: Setting{Name: name, Type: kind, Meaning: meaning},
		parse: func(d *draft, v string) error {
			if err := checkLine(v); err != nil {
				return err
			}
			*at(d) = v
			return nil
		},
	}
}

// hidden is a setting of a secret that ends up in a header.
func hidden(name, kind string, at func(*draft) *Secret, meaning string) setting {
	return secret(setting{
		Setting: Setting{Name: name, Type: kind, Meaning: meaning},
		parse: func(d *draft, v string) error {
			if err := checkHeaderValue(v); err != nil {
				return err
			}
			*at(d) = Secret(v)
			return nil
		},
	})
}

// parsed is a setting with a parser of its own.
func parsed(name, def, kind string, parse func(*draft, string) error, meaning string) setting {
	return setting{
		Setting: Setting{Name: name, Default: def, Type: kind, Meaning: meaning},
		parse:   parse,
	}
}

// longestLine bounds free text: longer than any name, path or address in use.
const longestLine = 4096

// checkLine refuses text that no path, name or address holds.
func checkLine(v string) error {
	switch {
	case len(v) > longestLine:
		return errors.New("too long")
	case !printable(v):
		return errors.New("holds a control character or is not UTF-8")
	}
	return nil
}

// checkHeaderValue refuses what cannot stand in a header: anything but visible
// ASCII, blanks and tabs (RFC 9110, section 5.5).
func checkHeaderValue(v string) error {
	if len(v) > 64<<10 {
		return errors.New("too long")
	}
	for i := 0; i < len(v); i++ {
		if c := v[i]; c != '\t' && (c < ' ' || c > '~') {
			return errors.New("holds a character that cannot stand in a header (a line break, perhaps)")
		}
	}
	return nil
}

// isToken reports whether v is a header's name (RFC 9110, section 5.6.2).
func isToken(v string) bool {
	for i := 0; i < len(v); i++ {
		c := v[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return v != ""
}

// list splits v at its commas and drops blanks and empty parts.
func list(v string) []string {
	var parts []string
	for part := range strings.SplitSeq(v, ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}
