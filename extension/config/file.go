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

	listener   Listener // the block that is read, with its kind for a network
	tlsDisable bool     // of that block
	listeners  []Listener
	listening  bool // there is a listener block

	kind    string     // of the method block that is read
	config  []item     // its config block, whose keys depend on the kind
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
	src, err := read(path)
	items, bad := parseTree(src)
	const remedy = "; correct THAW_CONFIG or -config"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		bad = &Problem{Message: "no such file" + remedy}
	case errors.Is(err, fs.ErrPermission):
		bad = &Problem{Message: "may not be read by this process" + remedy}
	case err != nil:
		bad = &Problem{Message: "cannot be read: " + err.Error() + remedy}
	}
	if f.broken = bad != nil; f.broken {
		l.problem(place{File: path, Line: bad.Line}, "", bad.Message)
		return
	}
	// Vault Proxy's defaults: with a file, nothing is cached and no token is
	// lent unless it says so.
	l.d.StaticCache, l.d.OwnToken = false, OwnTokenNever
	l.walk("", items, l.topRules())
	l.checkMoved()
	if !l.d.StaticCache {
		// As there, the two refresh settings count for static caching only.
		for _, name := range []string{"THAW_CAPABILITY_REFRESH_INTERVAL", "THAW_CAPABILITY_REFRESH_BEHAVIOR"} {
			l.apply(l.row(name), place{Name: name}, l.row(name).Default)
		}
	}
	// A CA in the environment replaces the file's, of whatever kind: else ca_cert, which
	// wins over the others, would win over VAULT_CACERT_BYTES.
	if l.firstSet("VAULT_CACERT", "VAULT_CACERT_BYTES", "VAULT_CAPATH") != "" {
		l.d.TLS.CACert, l.d.TLS.CAPath = "", ""
	}
	// As an id in the environment does the file's file of it.
	if l.isSet("THAW_ROLE_ID") {
		l.d.Auth.RoleIDFile = ""
	}
	if l.isSet("THAW_SECRET_ID") {
		l.d.Auth.SecretFile = ""
	}
}

// rule is one or more keys that a block may have.
type rule struct {
	keys string // with blanks between
	to   any    // what becomes of the value: one of the types below, or a place that assign knows
}

type (
	// useless is a key that Vault Proxy knows and thaw has no use for, and why.
	useless string
	// refused is a key that would make something safer there and cannot be honoured,
	// and what to do instead: to ignore it would open what the user closed.
	refused string
	// via is the variable that means the same: the value goes through its parser.
	via string
	// scalar takes one value of any kind, and says what is wrong with it; truth takes
	// one that is true or false.
	scalar func(at place, v string) error
	truth  func(at place, b bool)
	// block is a block with its keys.
	block struct {
		many     bool // may stand more than once
		labelled bool // takes a label
		keys     []rule
		around   func(at place, it item, read func()) // what is done before and after its keys are read; nil: nothing
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
		if isBlock {
			ones = expand(it, b)
		}
		_, many := to.(useless)
		for _, one := range ones {
			at.Line = one.line
			if line, again := first[key]; again && !many && !b.many {
				l.refuse(at, "", "stands twice (first on line "+strconv.Itoa(line)+"); keep one")
				continue
			}
			first[key] = one.line
			l.file.at[at.Name] = at
			l.obey(to, at, one)
		}
	}
}

// obey does with one item what its rule says.
func (l fileReader) obey(to any, at place, it item) {
	b, isBlock := to.(block)
	why, isUseless := to.(useless)
	v := strings.TrimSpace(it.text)
	switch {
	case isUseless:
		l.ignore(at, " has no effect in thaw"+string(why))
	case isBlock && it.kind != kindObject:
		l.refuse(at, "", "must be a block: "+strings.ToLower(it.key)+" { ... }")
	case isBlock:
		read := func() { l.walk(at.Name+".", it.items, b.keys) }
		if b.around == nil {
			read()
			return
		}
		b.around(at, it, read)
	case it.kind == kindObject || it.kind == kindList:
		l.refuse(at, "", "must be one value, not a block or a list")
	case v != "":
		err := l.set(to, at, it.kind, v)
		if _, isSecret := to.(*Secret); isSecret {
			v = ""
		}
		l.check(at, v, err)
	}
}

// set parses one value as its rule says.
func (l fileReader) set(to any, at place, kind valueKind, v string) error {
	switch to := to.(type) {
	case via:
		l.apply(l.row(string(to)), at, v)
		return nil
	case refused: // the value is not shown
		l.check(at, "", errIf(!strings.EqualFold(v, "false") && v != "0", string(to)))
		return nil
	case scalar:
		return to(at, v)
	case truth:
		b, err := boolean(v)
		if err == nil {
			to(at, b)
		}
		return err
	case *bool:
		return into(to, boolean)(v)
	}
	return cmp.Or(errIf(kind == kindBool, "must be text"), assign(to, "", v))
}

// boolean is parseBool, whose error says what is allowed.
func boolean(v string) (b bool, err error) {
	if b, err = parseBool(v); err != nil {
		err = errors.New(err.Error() + "; allowed: true or false")
	}
	return b, err
}

// ignore warns of a key once.
func (l fileReader) ignore(at place, why string) {
	text := at.Name + why
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
	other := func(o item) bool { return o.kind != kindObject }
	return it.kind == kindObject || it.kind == kindList && len(it.items) > 0 && !slices.ContainsFunc(it.items, other)
}
