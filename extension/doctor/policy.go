package doctor

import (
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
	switch denied, asked := e.deniedBelow(ctx, w.namespace, lists, data); {
	case asked == 0 || len(denied) == asked:
		return Fault("the token may list "+lists+" and not read "+data+where, "the warm-up finds the secrets and cannot fetch them", addPolicy+stanza(data+"*", "read"))
	case len(denied) > 0:
		return Advise("of "+strconv.Itoa(asked)+" secrets in "+lists+" the token may not read "+strconv.Itoa(len(denied))+", such as "+denied[0],
			"the warm-up asks for them in vain in every pass", "add them to the role's policies, or warm a narrower prefix")
	default:
		return Fine("may list " + lists + " and read what is in it")
	}
}

// deniedBelow lists a folder and says which of its secrets may not be read.
func (e *Exam) deniedBelow(ctx context.Context, namespace, lists, data string) (denied []string, asked int) {
	var paths []string
	keys, _ := e.list(ctx, namespace, strings.TrimSuffix(lists, "/"))
	for _, k := range keys {
		if !strings.HasSuffix(k, "/") && len(paths) < sample {
			paths = append(paths, data+k)
		}
	}
	of, err := e.capabilities(ctx, namespace, paths...)
	if err != nil {
		return nil, 0
	}
	denied = slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return allows(of[p], "read") })
	return denied, len(paths)
}
