package doctor

import (
	"context"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/thaw-project/thaw/extension/cache"
)

// mountAnswer is what the origin says of the mount of a path.
type mountAnswer struct {
	cache.Mount // Version 0: not KV, or not known
	known       bool
	status      int // 0: no answer
}

// mount asks which mount a path is on, once for each path
// (sys/internal/ui/mounts, which vault kv asks too).
func (e *Exam) mount(ctx context.Context, w wanted) mountAnswer {
	name := w.namespace + "\x00" + w.path
	m, asked := e.mounts[name]
	if asked {
		return m
	}
	res, body, err := e.Ask(ctx, http.MethodGet, w.namespace, "sys/internal/ui/mounts/"+strings.Trim(w.path, "/"), nil, nil)
	if err == nil {
		if m.status = res.StatusCode; m.status == http.StatusOK {
			m.Mount, m.known = cache.ParseMount(w.namespace, body)
		}
	}
	e.mounts[name] = m
	return m
}

// meant is the path that was probably meant where one lacks /data/ or has one
// too many; "": the path is fine, or its mount is not known
// (https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2).
func (e *Exam) meant(ctx context.Context, w wanted) string {
	m := e.mount(ctx, w)
	rest, below := strings.CutPrefix(w.path, m.Path+"/")
	first, after, _ := strings.Cut(rest, "/")
	switch {
	case !m.known || !below:
	case m.Version == 2 && !slices.Contains([]string{"data", "metadata", "subkeys", "config"}, first):
		if strings.EqualFold(first, "data") { // upper and lower case count
			rest = after
		}
		return m.Path + "/data/" + rest
	case m.Version == 1 && first == "data" && after != "":
		return m.Path + "/" + after
	}
	return ""
}

// kv looks at mounts and forms of paths, and reads what is configured.
func kv(ctx context.Context, e *Exam) {
	for _, k := range e.Config.KVMounts {
		m := e.mount(ctx, wanted{namespace: e.Config.Namespace, path: k.Path})
		if m.known && m.Path == k.Path && m.Version != k.Version {
			is := "KV version " + strconv.Itoa(m.Version)
			if m.Version == 0 {
				is = "no KV mount"
			}
			e.Problem("THAW_KV_MOUNTS says "+k.Path+"="+strconv.Itoa(k.Version)+", and it is "+is,
				"writes through thaw drop the wrong entries, so old secrets are served", "correct THAW_KV_MOUNTS, or remove it: thaw finds out by itself")
		}
	}
	for _, w := range e.wants(ctx) {
		m := e.mount(ctx, w)
		named := w.path + " (" + w.by + ")"
		e.judge(verdicts{
			{!m.known && m.status == http.StatusTemporaryRedirect, Problem, named + " has an empty part, or one of dots",
				"Vault does not answer it, but names another path", "write " + path.Clean(w.path)},
			{!m.known && m.status == http.StatusForbidden, Problem, "there is no mount for " + named + ", or the token may read nothing below it",
				"Vault tells neither from the other", "check the path, VAULT_NAMESPACE and the role's policies"},
			{!m.known, Unchecked, "the mount of " + named + " cannot be asked for: status " + strconv.Itoa(m.status), "", again},
			{m.Version == 0 && w.prefix, Problem, named + " is not on a KV mount", "only KV secrets can be warmed", "take it out"},
			{m.Version == 0, Advice, named + " is not on a KV mount", "it is cached only if a request opts in, and thaw renews no leases", "read it when it is needed"},
			{w.prefix, OK, w.path + " is on a mount of KV version " + strconv.Itoa(m.Version), "", ""},
		})
		if m.Version != 0 && !w.prefix {
			e.readOne(ctx, w, m.Mount)
		}
	}
	e.orOK("no paths are configured")
}

// readOne reads a secret, and looks at nothing but the answer's status.
func (e *Exam) readOne(ctx context.Context, w wanted, m cache.Mount) {
	named, is, right := w.path+" ("+w.by+")", "KV version "+strconv.Itoa(m.Version), e.meant(ctx, w)
	res, body, err := e.Ask(ctx, http.MethodGet, w.namespace, w.path, nil, nil)
	if err != nil {
		e.read[w.path] = e.read[w.path] || right != ""
		e.Unchecked(named+" cannot be read: "+err.Error(), again)
		return
	}
	status := res.StatusCode
	e.read[w.path] = e.read[w.path] || status != http.StatusForbidden || right != ""
	why := "a function that asks for it gets Vault's " + strconv.Itoa(status)
	if w.file {
		why += "; with a file of it, it does not start"
	}
	e.judge(verdicts{
		{status == http.StatusOK, OK, w.path + " is there (" + is + ")", "", ""},
		{right != "" && m.Version == 2, Problem, named + " is on a mount of " + is + " and lacks /data/", why, "write " + right},
		{right != "", Problem, named + " is on a mount of " + is + ", whose paths have no /data/", why, "write " + right},
		{status == http.StatusNotFound, Problem, "there is no secret at " + named + ", or its latest version is deleted", why,
			"write one there (vault kv put), or correct the path: upper and lower case count"},
		{status == http.StatusForbidden, Unchecked, named + " may not be read, so whether it is there is not known", "",
			"let the role read it first, as the check of policies says"},
		{true, Problem, named + ": Vault answers " + strconv.Itoa(status) + said(body), why, "correct the path"},
	})
}

// wanted is one path that the configuration means to read.
type wanted struct {
	namespace, path string
	by              string // the variable that names it, or "command line"
	file            bool   // the function does not start, or work, without it
	prefix          bool   // all below it; a warm-up's
}

// barePath is a path of the API without /v1/ and slashes around it, and without the
// address before it.
func barePath(p string) string {
	if u, err := url.Parse(p); err == nil && u.IsAbs() {
		p = u.RequestURI()
	}
	return strings.TrimRight(strings.TrimPrefix(strings.TrimLeft(p, "/"), "v1/"), "/")
}

// wants lists the configured paths, each once.
func (e *Exam) wants(ctx context.Context) []wanted {
	var out []wanted
	add := func(w wanted, paths ...string) {
		for _, p := range paths {
			if w.path = barePath(p); w.prefix && strings.HasSuffix(p, "/") {
				w.path += "/"
			}
			same := func(o wanted) bool { return o.namespace == w.namespace && o.path == w.path && o.prefix == w.prefix }
			if w.path != "" && !slices.ContainsFunc(out, same) {
				out = append(out, w)
			}
		}
	}
	cfg, ns := e.Config, e.Config.Namespace
	for _, f := range cfg.Files { // none under VAULT_RUN_MODE=proxy
		add(wanted{namespace: ns, by: f.Var, file: !cfg.FileOptional}, f.Path)
	}
	add(wanted{namespace: ns, by: "THAW_PREFETCH"}, cfg.Prefetch...)
	add(wanted{namespace: ns, by: "command line"}, e.o.Paths...)
	warm := wanted{namespace: ns, by: "THAW_WARM_PATHS", prefix: true}
	add(warm, e.prefixes(ctx, warm, cfg.Warm.Paths)...)
	for _, a := range cfg.Warm.Audiences {
		warm := wanted{namespace: a.Namespace, by: "THAW_WARM_AUDIENCES", prefix: true}
		add(warm, e.prefixes(ctx, warm, a.Paths)...)
	}
	return out
}

// prefixes are a warm-up's as it takes them: "*" and what stands above mounts is
// each of these mounts, and a path of the API is the folder that it is of.
func (e *Exam) prefixes(ctx context.Context, w wanted, raw []string) (out []string) {
	for _, p := range raw {
		w.path = p
		above, m := "", mountAnswer{}
		if p != "*" {
			above, m = strings.Trim(p, "/")+"/", e.mount(ctx, w)
		}
		rest, below := strings.CutPrefix(strings.Trim(p, "/")+"/", m.Path+"/")
		kind, folder, _ := strings.Cut(rest, "/")
		switch {
		case !m.known:
			if all := e.kvMounts(ctx, w.namespace, above); len(all) > 0 {
				out = append(out, all...)
				continue
			}
		case below && m.Version == 2 && (kind == "data" || kind == "metadata"):
			p = m.Path + "/" + folder
		}
		out = append(out, p)
	}
	return out
}

// kvMounts are the KV mounts that the token sees, of those whose paths begin so.
func (e *Exam) kvMounts(ctx context.Context, namespace, above string) (paths []string) {
	var seen struct {
		Secret map[string]struct{ Type string }
	}
	_, _ = e.data(ctx, http.MethodGet, namespace, "sys/internal/ui/mounts", nil, &seen) // what fails has none
	for path, m := range seen.Secret {
		if m.Type == "kv" && strings.HasPrefix(path, above) {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}
