package doctor

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

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

// may asks what the token may do, and reports whether Vault told. Else it says so.
func (e *Exam) may(ctx context.Context, namespace string, paths ...string) (of map[string][]string, told bool) {
	of, err := e.capabilities(ctx, namespace, paths...)
	if err != nil {
		e.Unchecked("what the token may do: "+err.Error(), again)
	}
	return of, err == nil
}

func allows(capabilities []string, needed string) bool {
	return slices.Contains(capabilities, needed) || slices.Contains(capabilities, "root")
}

const addPolicy = "add to the role's policies: "

// stanza is the policy that a path needs.
func stanza(path string, capabilities ...string) string {
	return "path \"" + path + "\" { capabilities = [\"" + strings.Join(capabilities, "\", \"") + "\"] }"
}

// policy asks whether the token may do what the configuration means to do.
func policy(ctx context.Context, e *Exam) {
	if _, err := e.capabilities(ctx, e.Config.Namespace, "sys/capabilities-self"); errors.Is(err, errForbidden) {
		e.Problem("the token may not ask sys/capabilities-self",
			"thaw cannot confirm that it may still read what is cached: after each THAW_CAPABILITY_REFRESH_INTERVAL every read goes to Vault, and the shared cache serves nothing",
			"keep Vault's default policy on the role, or "+addPolicy+stanza("sys/capabilities-self", "update"))
		return
	} else if err != nil {
		e.Unchecked("what the token may do: "+err.Error(), again)
		return
	}
	wants, hint := e.wants(ctx), ""
	if len(wants) == 0 {
		hint = "; no paths are configured, so name some on the command line to have them looked at"
	}
	e.OK("sys/capabilities-self may be asked" + hint)
	for _, w := range wants {
		if w.prefix {
			e.mayWarm(ctx, w)
		} else {
			e.mayRead(ctx, w)
		}
	}
}

// mayRead looks at one secret's path.
func (e *Exam) mayRead(ctx context.Context, w wanted) {
	path := cmp.Or(e.meant(ctx, w), w.path) // kv says which of the two is wrong
	meta := strings.Replace(path, "/data/", "/metadata/", 1)
	switch of, told := e.may(ctx, w.namespace, slices.Compact([]string{path, meta})...); {
	case !told:
	case !allows(of[path], "read"):
		why := "a function that asks for it gets Vault's 403"
		if w.file {
			why += "; with a file of it, it does not start"
		}
		e.Problem("the token may not read "+path+" ("+w.by+")", why, addPolicy+stanza(path, "read")+" (a policy that denies it wins)")
	case !allows(of[meta], "read"):
		e.OK("may read " + path + " (not its metadata, which thaw does not need)")
	default:
		e.OK("may read " + path)
	}
}

// sample is how many secrets of a prefix are looked at.
const sample = 20

// mayWarm looks at a warm-up's prefix as the warm-up walks it: a list, then
// what is in it.
func (e *Exam) mayWarm(ctx context.Context, w wanted) {
	m := e.mount(ctx, w)
	if m.Version == 0 {
		return // kv says so
	}
	folder := strings.Trim(strings.TrimPrefix(strings.Trim(w.path, "/"), m.Path), "/")
	lists, data := m.Path, m.Path
	if m.Version == 2 {
		lists, data = lists+"/metadata", data+"/data"
	}
	if folder != "" {
		lists, data = lists+"/"+folder, data+"/"+folder
	}
	of, told := e.may(ctx, w.namespace, lists+"/", data+"/")
	if !told {
		return
	}
	where := " (" + w.by + ", " + w.path + ")"
	if !allows(of[lists+"/"], "list") {
		e.Problem("the token may not list "+lists+"/"+where, "the warm-up does not find the secrets there", addPolicy+stanza(lists+"/*", "list")+" and "+stanza(lists+"/", "list"))
		return
	}
	if allows(of[data+"/"], "read") {
		e.OK("may list and read below " + w.path)
		return
	}
	switch denied, asked := e.deniedBelow(ctx, w.namespace, lists, data); {
	case asked == 0 || len(denied) == asked:
		e.Problem("the token may list "+lists+"/ and not read "+data+"/"+where, "the warm-up finds the secrets and cannot fetch them", addPolicy+stanza(data+"/*", "read"))
	case len(denied) > 0:
		e.Advice("of "+strconv.Itoa(asked)+" secrets in "+lists+"/ the token may not read "+strconv.Itoa(len(denied))+", such as "+denied[0],
			"the warm-up asks for them in vain in every pass", "add them to the role's policies, or warm a narrower prefix")
	default:
		e.OK("may list " + lists + "/ and read what is in it")
	}
}

// deniedBelow lists a folder and says which of its secrets may not be read.
func (e *Exam) deniedBelow(ctx context.Context, namespace, lists, data string) (denied []string, asked int) {
	var paths []string
	keys, _ := e.list(ctx, namespace, lists)
	for _, k := range keys {
		if !strings.HasSuffix(k, "/") && len(paths) < sample {
			paths = append(paths, data+"/"+k)
		}
	}
	of, err := e.capabilities(ctx, namespace, paths...)
	if err != nil {
		return nil, 0
	}
	denied = slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return allows(of[p], "read") })
	return denied, len(paths)
}
