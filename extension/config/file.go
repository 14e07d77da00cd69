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

	address string

	listeners   []Listener
	badListener bool

	auth    *fileAuth
	badAuth bool
	keys    [3]Secret // access_key, secret_key and session_token of an aws login

	at map[string]place // where blocks and keys stand, the last of each name
}

// fileReader reads the configuration file for a loader.
type fileReader struct{ *loader }

// readFile reads the configuration file into the draft.
func (l fileReader) readFile(path string, read func(string) ([]byte, error)) {
	f := &l.file
	f.path, f.at = path, map[string]place{}
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
		l.problem(place{file: path}, "", why+"; correct THAW_CONFIG or -config")
		return
	}
	items, err := parseTree(src)
	if err != nil {
		f.broken = true
		at := place{file: path}
		if s, ok := errors.AsType[*syntaxError](err); ok {
			at.line = s.line
		}
		l.problem(at, "", err.Error())
		return
	}
	f.present = true
	// Vault Proxy's defaults: with a file, nothing is cached and no token is
	// lent unless it says so.
	l.d.StaticCache, l.d.OwnToken = false, OwnTokenNever
	l.walk("", items, l.topRules())
	l.checkMoved()
}

// rule is one or more keys that a block may have.
type rule struct {
	keys string // with blanks between
	to   any    // what becomes of the value: one of the types below, or a place that assign knows
}

type (
	// via is the variable that means the same: the value goes through its parser.
	via string
	// useless is a key that Vault Proxy knows and thaw has no use for, and why.
	useless string
	// refused is a key that would make something safer there and cannot be
	// honoured, and what to do instead: to ignore it would open what the user closed.
	refused string
	// scalar takes one value, and where it stands; truth one that is true or false.
	scalar func(at place, v string)
	truth  func(at place, b bool)
	// block is a block. apply is nil for one that is its keys and no more.
	block struct {
		many     bool // may stand more than once
		labelled bool // takes a label
		keys     func() []rule
		apply    func(at place, it item)
	}
)

// find gives the rule of a key; nil: there is none.
func find(rules []rule, key string) *rule {
	i := slices.IndexFunc(rules, func(r rule) bool { return slices.Contains(strings.Fields(r.keys), key) })
	if i < 0 {
		return nil
	}
	return &rules[i]
}

// walk applies rules to the items of one block. prefix is the block's name
// with a dot.
func (l fileReader) walk(prefix string, items []item, rules []rule) {
	first := make(map[string]int, len(items))
	for _, it := range items {
		at := place{prefix + shownName(it.key), l.file.path, it.line}
		key := strings.ToLower(it.key) // as Vault's parser, which folds case
		r := find(rules, key)
		if r == nil {
			l.refuse(at, "", "unknown key"+unknownHint(key, rules)+"; correct or remove it")
			continue
		}
		b, isBlock := r.to.(block)
		_, many := r.to.(useless)
		for _, one := range expand(it, b, isBlock) {
			at.line = one.line
			if line, again := first[key]; again && !many && !b.many {
				l.refuse(at, "", "stands twice (first on line "+strconv.Itoa(line)+"); keep one")
				continue
			}
			first[key] = one.line
			l.obey(r.to, at, one)
		}
	}
}

// obey does with one item what its rule says.
func (l fileReader) obey(to any, at place, it item) {
	l.file.at[at.name] = at
	switch to := to.(type) {
	case useless:
		l.ignore(at, " has no effect in thaw"+string(to))
		return
	case block:
		switch {
		case it.kind != kindObject:
			l.refuse(at, "", "must be a block: "+strings.ToLower(it.key)+" { ... }")
		case to.apply != nil:
			to.apply(at, it)
		default:
			l.walk(at.name+".", it.items, to.keys())
		}
		return
	}
	if it.kind == kindObject || it.kind == kindList {
		l.refuse(at, "", "must be one value, not a block or a list")
		return
	}
	v := strings.TrimSpace(it.text)
	if v == "" {
		return
	}
	switch to := to.(type) {
	case via:
		l.apply(l.row(string(to)), at, v)
	case truth:
		var b bool
		if l.put(&b, at, it.kind, v) {
			to(at, b)
		}
	case refused:
		if !strings.EqualFold(v, "false") && v != "0" {
			l.refuse(at, "", string(to))
		}
	case scalar:
		to(at, v)
	default:
		l.put(to, at, it.kind, v)
	}
}

// put parses a value into a place of the file's own, and reports whether it can.
func (l fileReader) put(to any, at place, kind valueKind, v string) bool {
	_, isBool := to.(*bool)
	_, isSecret := to.(*Secret)
	err := assign(to, "", v)
	switch {
	case isBool && err != nil:
		l.refuse(at, v, err.Error()+"; allowed: true or false")
	case !isBool && kind == kindBool:
		l.refuse(at, v, "must be text")
	case err != nil && isSecret || err != nil && checkLine(v) != nil:
		l.refuse(at, "", err.Error())
	case err != nil:
		l.refuse(at, v, err.Error())
	default:
		return true
	}
	return false
}

// ignore warns of a key once.
func (l fileReader) ignore(at place, why string) {
	text := at.name + why
	if !slices.ContainsFunc(l.warnings, func(w Warning) bool { return strings.HasSuffix(w.Message, ": "+text) }) {
		l.warn(at.prefix() + text)
	}
}

func unknownHint(key string, rules []rule) string {
	var keys []string
	for _, r := range rules {
		keys = append(keys, strings.Fields(r.keys)...)
	}
	if near := nearest(key, keys); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}

// expand gives the blocks that one item stands for: a list of objects is that
// many blocks, and an object whose keys are labels ({"listener": {"tcp": {}}},
// as JSON has it) is a block for each.
func expand(it item, b block, isBlock bool) []item {
	if !isBlock {
		return []item{it}
	}
	var all []item
	if it.kind == kindList {
		for _, in := range it.items {
			in.key, in.label = it.key, it.label
			all = append(all, expand(in, b, true)...)
		}
		return all
	}
	if it.label != "" || !b.labelled || len(it.items) == 0 {
		return []item{it}
	}
	known := b.keys()
	for _, in := range it.items {
		if find(known, strings.ToLower(in.key)) != nil || !in.isBlock() {
			return []item{it}
		}
		in.key, in.label = it.key, in.key
		all = append(all, expand(in, b, true)...)
	}
	return all
}

// isBlock reports whether it is an object, or a list of nothing else.
func (it *item) isBlock() bool {
	if it.kind == kindList {
		return len(it.items) > 0 && !slices.ContainsFunc(it.items, func(o item) bool { return o.kind != kindObject })
	}
	return it.kind == kindObject
}
