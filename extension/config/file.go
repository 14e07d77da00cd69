package config

import (
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// file is what was learned of the configuration file, besides the settings
// that went straight into the draft.
type file struct {
	path            string
	present, broken bool // broken: it could not be read or parsed

	address   string
	addressAt place

	listeners   []Listener
	badListener bool

	auth                  *fileAuth
	badAuth               bool
	awsKeyID              string
	awsSecret, awsSession Secret

	// Where blocks and keys stand; line 0: not there.
	cacheAt, proxyAt, staticAt, ownTokenAt place
}

// readFile reads the configuration file into the draft.
func (l *loader) readFile(path string, read func(string) ([]byte, error)) {
	f := &l.file
	f.path = path
	src, err := read(path)
	if err != nil {
		f.broken = true
		why := "cannot be read: " + err.Error()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			why = "no such file"
		case errors.Is(err, fs.ErrPermission):
			why = "may not be read by this process"
		}
		l.problem(&Problem{File: path, Message: why + "; correct THAW_CONFIG or -config"})
		return
	}
	items, err := parseTree(src)
	if err != nil {
		f.broken = true
		p := &Problem{File: path, Message: err.Error()}
		if s, ok := errors.AsType[*syntaxError](err); ok {
			p.Line = s.line
		}
		l.problem(p)
		return
	}
	f.present = true
	// Vault Proxy's defaults: with a file, nothing is cached and no token is
	// lent unless it says so.
	l.d.StaticCache, l.d.OwnToken = false, OwnTokenNever
	l.walk("", items, topRules())
}

// rule is one key that a block may have.
type rule struct {
	key   string
	block bool // holds a block
	many  bool // may stand more than once
	inner func() []rule
	apply func(l *loader, at place, it item)
}

// walk applies rules to the items of one block. prefix is the block's name
// with a dot.
func (l *loader) walk(prefix string, items []item, rules []rule) {
	first := make(map[string]int, len(items))
	for _, it := range items {
		at := place{name: prefix + shownName(it.key), file: l.file.path, line: it.line}
		key := strings.ToLower(it.key) // as Vault's parser, which folds case
		i := slices.IndexFunc(rules, func(r rule) bool { return r.key == key })
		if i < 0 {
			l.refuse(at, "", "unknown key"+unknownHint(key, rules)+"; correct or remove it")
			continue
		}
		r := &rules[i]
		for _, one := range expand(it, r) {
			at.line = one.line
			if line, again := first[key]; again && !r.many {
				l.refuse(at, "", "stands twice (first on line "+strconv.Itoa(line)+"); keep one")
				continue
			}
			first[key] = one.line
			switch {
			case r.block && one.val.kind != kindObject:
				l.refuse(at, "", "must be a block: "+key+" { ... }")
			case r.apply == nil:
				l.walk(at.name+".", one.val.items, r.inner())
			default:
				r.apply(l, at, one)
			}
		}
	}
}

func unknownHint(key string, rules []rule) string {
	keys := make([]string, len(rules))
	for i := range rules {
		keys[i] = rules[i].key
	}
	if near := nearest(key, keys); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}

// expand gives the blocks that one item stands for: a list of objects is that
// many blocks, and an object whose keys are labels ({"listener": {"tcp": {}}},
// as JSON has it) is a block for each.
func expand(it item, r *rule) []item {
	if !r.block {
		return []item{it}
	}
	if it.val.kind == kindList {
		var all []item
		for _, v := range it.val.list {
			all = append(all, expand(item{key: it.key, label: it.label, line: v.line, val: v}, r)...)
		}
		return all
	}
	if it.label != "" || it.val.kind != kindObject || r.inner == nil || len(it.val.items) == 0 {
		return []item{it}
	}
	known := r.inner()
	for _, in := range it.val.items {
		isKey := slices.ContainsFunc(known, func(r rule) bool { return r.key == strings.ToLower(in.key) })
		if isKey || !r.labelled() || !in.val.isBlock() {
			return []item{it}
		}
	}
	var all []item
	for _, in := range it.val.items {
		all = append(all, expand(item{key: it.key, label: in.key, line: in.line, val: in.val}, r)...)
	}
	return all
}

// labelled reports whether a block of this rule takes a label.
func (r *rule) labelled() bool { return r.key == "listener" || r.key == "method" }

// isBlock reports whether v is an object, or a list of nothing else.
func (v *value) isBlock() bool {
	if v.kind == kindList {
		return len(v.list) > 0 && !slices.ContainsFunc(v.list, func(o value) bool { return o.kind != kindObject })
	}
	return v.kind == kindObject
}

// scalar gives the one value of a key as text.
func (l *loader) scalar(at place, it item) (string, bool) {
	if it.val.kind == kindObject || it.val.kind == kindList {
		l.refuse(at, "", "must be one value, not a block or a list")
		return "", false
	}
	return strings.TrimSpace(it.val.text), true
}

// via is a key that means the same as a variable and goes through its parser.
func via(key, variable string) rule {
	return rule{key: key, apply: func(l *loader, at place, it item) {
		if v, ok := l.scalar(at, it); ok && v != "" {
			l.apply(l.row(variable), at, v)
		}
	}}
}

// line is a key of free text on one line.
func line(key string, set func(l *loader, at place, v string)) rule {
	return rule{key: key, apply: func(l *loader, at place, it item) {
		v, ok := l.scalar(at, it)
		if !ok || v == "" {
			return
		}
		if it.val.kind == kindBool {
			l.refuse(at, v, "must be text")
			return
		}
		if err := checkLine(v); err != nil {
			l.refuse(at, "", err.Error())
			return
		}
		set(l, at, v)
	}}
}

// truth is a key that is true or false, with or without quotes.
func truth(key string, set func(l *loader, at place, b bool)) rule {
	return rule{key: key, apply: func(l *loader, at place, it item) {
		v, ok := l.scalar(at, it)
		if !ok || v == "" {
			return
		}
		b, err := parseBool(v)
		if err != nil {
			l.refuse(at, v, err.Error()+"; allowed: true or false")
			return
		}
		set(l, at, b)
	}}
}

// ignored is a key that Vault Proxy knows and thaw has no use for.
func ignored(because string, keys ...string) []rule {
	rules := make([]rule, len(keys))
	for i, key := range keys {
		rules[i] = rule{key: key, many: true, apply: func(l *loader, at place, _ item) {
			text := at.name + " has no effect in thaw" + because
			for _, w := range l.warnings {
				if strings.HasSuffix(w.Message, ": "+text) {
					return
				}
			}
			l.warn(at.file + ":" + strconv.Itoa(at.line) + ": " + text)
		}}
	}
	return rules
}
