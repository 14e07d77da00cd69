package doctor

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/thaw-project/thaw/extension/cache"
)

// wanted is one path that the configuration means to read, and what is known of it.
type wanted struct {
	namespace, path string
	by              string // the variable that names it, or "command line"
	file            bool   // the function does not start, or work, without it
	prefix          bool   // all below it; a warm-up's
	mount           mountAnswer
	meant           string // the path that was probably meant; path, where that is fine
}

// mountAnswer is what the origin says of the mount of a path.
type mountAnswer struct {
	cache.Mount // Version 0: not KV, or not known
	known       bool
	status      int // 0: no answer
}

// mount asks which mount a path is on (sys/internal/ui/mounts, which vault kv asks too).
func (e *Exam) mount(ctx context.Context, namespace, path string) (m mountAnswer) {
	res, body, _ := e.Ask(ctx, http.MethodGet, namespace, "sys/internal/ui/mounts/"+strings.Trim(path, "/"), nil, nil)
	if m.status = res.StatusCode; m.status == http.StatusOK {
		m.Mount, m.known = cache.ParseMount(namespace, body)
	}
	return m
}

// meant is the path that was probably meant where one lacks /data/ or has one
// too many; else the path
// (https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2).
func (m mountAnswer) meant(path string) string {
	rest, below := strings.CutPrefix(path, m.Path+"/")
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
	return path
}

// refused says what comes of it that Vault answers so.
func (w wanted) refused(status int) string {
	why := "a function that asks for it gets Vault's " + strconv.Itoa(status)
	if w.file {
		why += "; with a file of it, it does not start"
	}
	return why
}

// kv looks at mounts and forms of paths, and reads what is configured.
func kv(ctx context.Context, e *Exam) {
	for _, k := range e.Config.KVMounts {
		m := e.mount(ctx, e.Config.Namespace, k.Path)
		if m.known && m.Path == k.Path && m.Version != k.Version {
			e.Tell(Fault("THAW_KV_MOUNTS says "+k.Path+"="+strconv.Itoa(k.Version)+", and it is "+m.is(),
				"writes through thaw drop the wrong entries, so old secrets are served", "correct THAW_KV_MOUNTS, or remove it: thaw finds out by itself"))
		}
	}
	for _, w := range e.wants(ctx) {
		named, m := w.path+" ("+w.by+")", w.mount
		e.Tell(verdicts{
			{!m.known && m.status == http.StatusTemporaryRedirect, Fault(named+" has an empty part, or one of dots",
				"Vault does not answer it, but names another path", "write "+path.Clean(w.path))},
			{!m.known && m.status == http.StatusForbidden, Fault("there is no mount for "+named+", or the token may read nothing below it",
				"Vault tells neither from the other", "check the path, VAULT_NAMESPACE and the role's policies")},
			{!m.known, Unseen("the mount of "+named+" cannot be asked for: status "+strconv.Itoa(m.status), again)},
			{m.Version == 0 && w.prefix, Fault(named+" is not on a KV mount", "only KV secrets can be warmed", "take it out")},
			{m.Version == 0, Advise(named+" is not on a KV mount", "it is cached only if a request opts in, and thaw renews no leases", "read it when it is needed")},
			{w.prefix, Fine(w.path + " is on a mount of " + m.is())},
		}.first())
		if m.Version != 0 && !w.prefix {
			e.Tell(e.readOne(ctx, w))
		}
	}
}

// is says what kind of mount it is.
func (m mountAnswer) is() string {
	if m.Version == 0 {
		return "no KV mount"
	}
	return "KV version " + strconv.Itoa(m.Version)
}

// readOne reads a secret, and looks at nothing but the answer's status.
func (e *Exam) readOne(ctx context.Context, w wanted) Finding {
	named, is, wrong := w.path+" ("+w.by+")", w.mount.is(), w.meant != w.path
	res, body, err := e.Ask(ctx, http.MethodGet, w.namespace, w.path, nil, nil)
	if err != nil {
		e.read[w.path] = e.read[w.path] || wrong
		return Unseen(named+" cannot be read: "+err.Error(), again)
	}
	status := res.StatusCode
	e.read[w.path] = e.read[w.path] || wrong || status != http.StatusForbidden
	why := w.refused(status)
	return verdicts{
		{status == http.StatusOK, Fine(w.path + " is there (" + is + ")")},
		{wrong && w.mount.Version == 2, Fault(named+" is on a mount of "+is+" and lacks /data/", why, "write "+w.meant)},
		{wrong, Fault(named+" is on a mount of "+is+", whose paths have no /data/", why, "write "+w.meant)},
		{status == http.StatusNotFound, Fault("there is no secret at "+named+", or its latest version is deleted", why,
			"write one there (vault kv put), or correct the path: upper and lower case count")},
		{status == http.StatusForbidden, Unseen(named+" may not be read, so whether it is there is not known", "let the role read it first, as the check of policies says")},
		{true, Fault(named+": Vault answers "+strconv.Itoa(status)+said(body), why, "correct the path")},
	}.first()
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
	if e.wanted != nil {
		return e.wanted
	}
	cfg, ns := e.Config, e.Config.Namespace
	for _, f := range cfg.Files { // none under VAULT_RUN_MODE=proxy
		e.want(ctx, wanted{namespace: ns, by: f.Var, file: !cfg.FileOptional}, f.Path)
	}
	e.want(ctx, wanted{namespace: ns, by: "THAW_PREFETCH"}, cfg.Prefetch...)
	e.want(ctx, wanted{namespace: ns, by: "command line"}, e.o.Paths...)
	e.want(ctx, wanted{namespace: ns, by: "THAW_WARM_PATHS", prefix: true}, cfg.Warm.Paths...)
	for _, a := range cfg.Warm.Audiences {
		e.want(ctx, wanted{namespace: a.Namespace, by: "THAW_WARM_AUDIENCES", prefix: true}, a.Paths...)
	}
	return e.wanted
}

// want adds paths, prefixes as a warm-up takes them: "*" and what stands above mounts
// is each of these mounts, and a path of the API is the folder that it is of.
func (e *Exam) want(ctx context.Context, w wanted, paths ...string) {
	for _, p := range paths {
		w.path = barePath(p)
		w.mount = e.mount(ctx, w.namespace, w.path)
		if w.prefix && !w.mount.known {
			all := e.kvMounts(ctx, w.namespace, strings.TrimPrefix(w.path+"/", "*/"))
			for _, path := range all {
				w.path, w.mount = path, e.mount(ctx, w.namespace, path)
				e.add(w)
			}
			if len(all) > 0 {
				continue
			}
		}
		rest, below := strings.CutPrefix(w.path+"/", w.mount.Path+"/")
		kind, folder, _ := strings.Cut(rest, "/")
		switch {
		case w.prefix && below && w.mount.Version == 2 && (kind == "data" || kind == "metadata"):
			w.path = w.mount.Path + "/" + folder
		case w.prefix && strings.HasSuffix(p, "/"):
			w.path += "/"
		}
		e.add(w)
	}
}

// add adds one, unless it is there already.
func (e *Exam) add(w wanted) {
	same := func(o wanted) bool { return o.namespace == w.namespace && o.path == w.path && o.prefix == w.prefix }
	if w.path != "" && !slices.ContainsFunc(e.wanted, same) {
		w.meant = w.mount.meant(w.path)
		e.wanted = append(e.wanted, w)
	}
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

// capabilities asks what the token may do with paths
// (https://developer.hashicorp.com/vault/api-docs/system/capabilities-self).
func (e *Exam) capabilities(ctx context.Context, namespace string, paths ...string) (of map[string][]string, err error) {
	status, err := e.data(ctx, http.MethodPost, namespace, "sys/capabilities-self", map[string][]string{"paths": paths}, &of)
	if status == http.StatusForbidden {
		err = errForbidden
	}
	return of, err
}

// again is how to check what Vault failed to tell.
const again = "see Vault's log for the reason, and run the doctor again"

var errForbidden = errors.New("sys/capabilities-self may not be asked")

func allows(capabilities []string, needed string) bool {
	return slices.Contains(capabilities, needed) || slices.Contains(capabilities, "root")
}

const addPolicy = "add to the role's policies: "

// stanza is the policy that a path needs.
func stanza(path string, capabilities ...string) string {
	return "path \"" + path + "\" { capabilities = [\"" + strings.Join(capabilities, "\", \"") + "\"] }"
}

// policy asks whether the token may do what the configuration means to do.
func policy(ctx context.Context, e *Exam) Finding {
	if _, err := e.capabilities(ctx, e.Config.Namespace, "sys/capabilities-self"); errors.Is(err, errForbidden) {
		return Fault("the token may not ask sys/capabilities-self",
			"thaw cannot confirm that it may still read what is cached: after each THAW_CAPABILITY_REFRESH_INTERVAL every read goes to Vault, and the shared cache serves nothing",
			"keep Vault's default policy on the role, or "+addPolicy+stanza("sys/capabilities-self", "update"))
	} else if err != nil {
		return Unseen("what the token may do: "+err.Error(), again)
	}
	wants, hint := e.wants(ctx), ""
	if len(wants) == 0 {
		hint = "; no paths are configured, so name some on the command line to have them looked at"
	}
	e.Tell(Fine("sys/capabilities-self may be asked" + hint))
	for _, w := range wants {
		may := e.mayRead
		if w.prefix {
			may = e.mayWarm
		}
		e.Tell(may(ctx, w))
	}
	return Finding{}
}

// mayRead looks at one secret's path.
func (e *Exam) mayRead(ctx context.Context, w wanted) Finding {
	path := w.meant // kv says which of the two is wrong
	meta := strings.Replace(path, "/data/", "/metadata/", 1)
	switch of, err := e.capabilities(ctx, w.namespace, slices.Compact([]string{path, meta})...); {
	case err != nil:
		return Unseen("what the token may do: "+err.Error(), again)
	case !allows(of[path], "read"):
		return Fault("the token may not read "+path+" ("+w.by+")", w.refused(http.StatusForbidden), addPolicy+stanza(path, "read")+" (a policy that denies it wins)")
	case !allows(of[meta], "read"):
		return Fine("may read " + path + " (not its metadata, which thaw does not need)")
	default:
		return Fine("may read " + path)
	}
}

// sample is how many secrets of a prefix are looked at.
const sample = 20

// mayWarm looks at a warm-up's prefix as the warm-up walks it: a list, then
// what is in it.
func (e *Exam) mayWarm(ctx context.Context, w wanted) Finding {
	m := w.mount
	if m.Version == 0 {
		return Finding{} // kv says so
	}
	folder := strings.TrimLeft(strings.Trim(strings.TrimPrefix(strings.Trim(w.path, "/"), m.Path), "/")+"/", "/")
	lists, data := m.Path+"/"+folder, m.Path+"/"+folder
	if m.Version == 2 {
		lists, data = m.Path+"/metadata/"+folder, m.Path+"/data/"+folder
	}
	of, err := e.capabilities(ctx, w.namespace, lists, data)
	where := " (" + w.by + ", " + w.path + ")"
	switch {
	case err != nil:
		return Unseen("what the token may do: "+err.Error(), again)
	case !allows(of[lists], "list"):
		return Fault("the token may not list "+lists+where, "the warm-up does not find the secrets there", addPolicy+stanza(lists+"*", "list")+" and "+stanza(lists, "list"))
	case allows(of[data], "read"):
		return Fine("may list and read below " + w.path)
	}
	var sampled []string
	keys, _ := e.list(ctx, w.namespace, strings.TrimSuffix(lists, "/"))
	for _, k := range keys {
		if !strings.HasSuffix(k, "/") && len(sampled) < sample {
			sampled = append(sampled, data+k)
		}
	}
	of, _ = e.capabilities(ctx, w.namespace, sampled...) // of what is not told nothing is allowed
	switch denied := slices.DeleteFunc(slices.Clone(sampled), func(p string) bool { return allows(of[p], "read") }); {
	case len(denied) == len(sampled):
		return Fault("the token may list "+lists+" and not read "+data+where, "the warm-up finds the secrets and cannot fetch them", addPolicy+stanza(data+"*", "read"))
	case len(denied) > 0:
		return Advise("of "+strconv.Itoa(len(sampled))+" secrets in "+lists+" the token may not read "+strconv.Itoa(len(denied))+", such as "+denied[0],
			"the warm-up asks for them in vain in every pass", "add them to the role's policies, or warm a narrower prefix")
	default:
		return Fine("may list " + lists + " and read what is in it")
	}
}
