package config

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// The variables of file mode; more pairs have these names, an underscore and a
// suffix that both halves share.
// https://github.com/hashicorp/vault-lambda-extension#configuration
const (
	pairPath = "VAULT_SECRET_PATH"
	pairFile = "VAULT_SECRET_FILE"

	fileDir     = "/tmp/vault"
	defaultFile = "secret.json"
)

// isPairName reports whether name is a variable of file mode with a suffix,
// which may be empty and then is an error.
func isPairName(name string) bool {
	return strings.HasPrefix(name, pairPath+"_") || strings.HasPrefix(name, pairFile+"_")
}

// resolveFiles pairs the secrets of file mode with their files.
func (l *loader) resolveFiles() {
	d := &l.d
	suffixes := l.pairSuffixes()
	wanted := l.value(pairPath) != "" || len(suffixes) > 0
	if d.RunMode == RunProxy {
		l.warnIf(wanted, "VAULT_RUN_MODE=proxy: no files are written, so "+pairPath+" and "+pairFile+" have no effect")
		return
	}
	for _, suffix := range append([]string{""}, suffixes...) {
		pathVar, fileVar := pairPath+suffix, pairFile+suffix
		secretPath, file := l.value(pathVar), l.value(fileVar)
		switch {
		case secretPath == "" && file == "":
		case secretPath == "" && suffix == "":
			l.warnIf(l.good(pairPath), pairFile+" has no effect without "+pairPath)
		case secretPath == "":
			l.wrong(fileVar, "names a file, but "+pathVar+", which would name its secret, is missing; set both or none")
		case file == "" && suffix != "":
			l.wrong(pathVar, "names a secret, but "+fileVar+", which would name its file, is missing; set both or none")
		default:
			l.addFile(pathVar, secretPath, fileVar, cmp.Or(file, defaultFile))
		}
	}
	if d.RunMode == RunFile && len(d.Files) == 0 && !wanted {
		l.problem(place{Name: "VAULT_RUN_MODE"}, "file", "nothing to do: no secret to write is configured; set "+pairPath)
	}
}

// pairSuffixes are those that the environment's names of file mode have, each with its
// underscore, in order.
func (l *loader) pairSuffixes() []string {
	var suffixes []string
	for _, name := range l.names {
		if !isPairName(name) {
			continue
		}
		if suffix := name[len(pairPath):]; suffix != "_" { // both have the same length
			suffixes = append(suffixes, suffix)
		} else {
			l.wrong(name, "ends in an underscore; give the secret a name after it, or write "+strings.TrimSuffix(name, "_")+" for the one without")
		}
	}
	slices.Sort(suffixes)
	return slices.Compact(suffixes)
}

// addFile checks one pair and the ones before it.
func (l *loader) addFile(pathVar, secretPath, fileVar, file string) {
	clean, err := apiPath(secretPath)
	if err != nil {
		l.refuse(place{Name: pathVar}, secretPath, err.Error()+`; write an API path such as "secret/data/app"`)
		return
	}
	target := path.Clean(file)
	if !path.IsAbs(file) {
		target = path.Join(fileDir, file)
	}
	outside := !path.IsAbs(file) && !strings.HasPrefix(target, fileDir+"/")
	noFile := checkLine(file) != nil || strings.HasSuffix(file, "/") || path.Base(file) == "." || path.Base(file) == ".."
	err = cmp.Or(errIf(outside, "a relative file must stay below "+fileDir+"; write an absolute path"), errIf(noFile, "not the path of a file"))
	if !l.check(place{Name: fileVar}, file, err) {
		return
	}
	for _, other := range l.d.Files {
		switch {
		case other.File == target:
			l.wrong(pathVar, "writes the same file as "+other.Var+" ("+shownPath(target)+"); give one of them another file")
			return
		case strings.HasPrefix(other.File, target+"/") || strings.HasPrefix(target, other.File+"/"):
			l.wrong(pathVar, "its file "+shownPath(target)+" and that of "+other.Var+" cannot both be there: one would be a directory of the other; give one of them another file")
			return
		}
	}
	l.d.Files = append(l.d.Files, SecretFile{Path: clean, File: target, Var: pathVar})
}

// shownPath gives a path for a message.
func shownPath(v string) string { return cmp.Or(shown(v), "a path too long to show") }
