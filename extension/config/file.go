package config

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// file is what was learned of the configuration file, besides the settings
// that went straight into the draft.
type file struct {
	path   string // empty: there is none
	broken bool   // it could not be read or parsed

	address string

	listener    fileListener // the block that is read
	listeners   []Listener
	badListener bool

	method  fileMethod // the block that is read
	login   AuthMethod // what it names; empty: none
	loginAt place
	badAuth bool
	keys    [3]Secret // access_key, secret_key and session_token of an aws login

	at map[string]place // where blocks, keys and the settings that they gave values stand, the last of each name
}

// fileReader reads the configuration file for a loader.
type fileReader struct{ *loader }

// readFile reads the configuration file into the draft.
func (l fileReader) readFile(path string, read func(string) ([]byte, error)) {
	f := &l.file
	f.path, f.at = path, map[string]place{}
	at, why := place{file: path}, ""
	src, err := read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		why = "no such file; correct THAW_CONFIG or -config"
	case errors.Is(err, fs.ErrPermission):
		why = "may not be read by this process; correct THAW_CONFIG or -config"
	case err != nil:
		why = "cannot be read: " + err.Error() + "; correct THAW_CONFIG or -config"
	}
	items, bad := parseTree(src)
	if bad != nil && why == "" {
		at.line, why = bad.line, bad.what
	}
	if f.broken = why != ""; f.broken {
		l.problem(at, "", why)
		return
	}
	// Vault Proxy's defaults: with a file, nothing is cached and no token is
	// lent unless it says so.
	l.d.StaticCache, l.d.OwnToken = false, OwnTokenNever
	l.walk("", items, l.topRules())
	l.checkMoved()
}

// rule is one or more keys that a block may have.
type rule struct {
	keys string // with blanks between
	to   any    // what becomes of the value: one of the types below, a place that assign knows, or *[]item for a block that is read later
}

type (
	// via is the variable that means the same: the value goes through its parser.
	via string
	// translated is one that has other words for the same.
	translated struct {
		variable string
		word     func(string) string
	}
	// useless is a key that Vault Proxy knows and thaw has no use for, and why.
	useless string
	// refused is a key that would make something safer there and cannot be
	// honoured, and what to do instead: to ignore it would open what the user closed.
	refused string
	// scalar parses one value of any kind; truth takes one that is true or false, and
	// where it stands.
	scalar func(v string) error
	truth  func(at place, b bool)
	// block is a block with its keys.
	block struct {
		many     bool // may stand more than once
		labelled bool // takes a label
		keys     []rule
		around   func(at place, label string, read func()) // what is done before and after its keys are read; nil: nothing
	}
)

// find gives what becomes of a key; nil: there is no such key.
func find(rules []rule, key string) any {
	for _, r := range rules {
		if slices.Contains(strings.Fields(r.keys), key) {
			return r.to
		}
	}
	return nil
}

// walk applies rules to the items of one block. prefix is the block's name
// with a dot.
func (l fileReader) walk(prefix string, items []item, rules []rule) {
	first := make(map[string]int, len(items))
	for _, it := range items {
		at := place{prefix + shownName(it.key), l.file.path, it.line}
		key := strings.ToLower(it.key) // as Vault's parser, which folds case
		to := find(rules, key)
		if to == nil {
			var keys []string
			for _, r := range rules {
				keys = append(keys, strings.Fields(r.keys)...)
			}
			l.refuse(at, "", "unknown key"+didYouMean(nearest(key, keys))+"; correct or remove it")
			continue
		}
		ones := []item{it}
		b, isBlock := to.(block)
		if _, isRaw := to.(*[]item); isBlock || isRaw {
			ones = expand(it, b)
		}
		_, many := to.(useless)
		for _, one := range ones {
			at.line = one.line
			if line, again := first[key]; again && !many && !b.many {
				l.refuse(at, "", "stands twice (first on line "+strconv.Itoa(line)+"); keep one")
				continue
			}
			first[key] = one.line
			l.file.at[at.name] = at
			l.obey(to, at, one)
		}
	}
}

// obey does with one item what its rule says.
func (l fileReader) obey(to any, at place, it item) {
	raw, isRaw := to.(*[]item)
	b, isBlock := to.(block)
	why, isUseless := to.(useless)
	switch {
	case isUseless:
		l.ignore(at, " has no effect in thaw"+string(why))
	case (isBlock || isRaw) && it.kind != kindObject:
		l.refuse(at, "", "must be a block: "+strings.ToLower(it.key)+" { ... }")
	case isRaw:
		*raw = it.items
	case isBlock:
		read := func() { l.walk(at.name+".", it.items, b.keys) }
		if b.around == nil {
			read()
			return
		}
		b.around(at, it.label, read)
	case it.kind == kindObject || it.kind == kindList:
		l.refuse(at, "", "must be one value, not a block or a list")
	case strings.TrimSpace(it.text) != "":
		l.set(to, at, it.kind, strings.TrimSpace(it.text))
	}
}

// set does with one value what its rule says.
func (l fileReader) set(to any, at place, kind valueKind, v string) {
	switch to := to.(type) {
	case via:
		l.apply(l.row(string(to)), at, v)
	case truth:
		var b bool
		if l.put(&b, at, kind, v) {
			to(at, b)
		}
	case refused:
		l.check(at, "", errIf(!strings.EqualFold(v, "false") && v != "0", string(to)))
	case translated:
		l.apply(l.row(to.variable), at, to.word(v))
	case scalar:
		l.check(at, v, to(v))
	default:
		l.put(to, at, kind, v)
	}
}

// put parses a value into a place of the file's own, and reports whether it can.
func (l fileReader) put(to any, at place, kind valueKind, v string) bool {
	err := assign(to, "", v)
	_, isBool := to.(*bool)
	if _, isSecret := to.(*Secret); isSecret {
		v = ""
	}
	switch {
	case isBool && err != nil:
		err = errors.New(err.Error() + "; allowed: true or false")
	case !isBool && kind == kindBool:
		err = errors.New("must be text")
	}
	return l.check(at, v, err)
}

// ignore warns of a key once.
func (l fileReader) ignore(at place, why string) {
	text := at.name + why
	if !slices.ContainsFunc(l.warnings, func(w Warning) bool { return strings.HasSuffix(w.Message, ": "+text) }) {
		l.warn(at.prefix() + text)
	}
}

// expand gives the blocks that one item stands for: a list of objects is that
// many blocks, and an object whose keys are labels ({"listener": {"tcp": {}}},
// as JSON has it) is a block for each.
func expand(it item, b block) []item {
	noLabel := func(in item) bool { return find(b.keys, strings.ToLower(in.key)) != nil || !in.isBlock() }
	if it.kind != kindList && (it.label != "" || !b.labelled || len(it.items) == 0 || slices.ContainsFunc(it.items, noLabel)) {
		return []item{it}
	}
	var all []item
	for _, in := range it.items {
		in.key, in.label = it.key, cmp.Or(it.label, in.key)
		all = append(all, expand(in, b)...)
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
