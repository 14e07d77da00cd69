package warmup

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/thaw-project/thaw/extension/cache"
)

// everything is the prefix for every KV mount that the warm-up's identity sees.
const everything = "*"

// resolve learns which mount a prefix is on, and the mount's KV version. A
// prefix above mounts is one for each of them.
func (p *pass) resolve(ctx context.Context, raw string) ([]*prefix, error) {
	w, ns := p.w, p.audience.Namespace
	if raw == everything {
		return p.mountsBelow(ctx, "")
	}
	path := strings.Trim(strings.TrimPrefix(raw, "/v1/"), "/")
	m, ok := w.knownMount(ns, path)
	if !ok {
		key := cache.Key{Namespace: ns, Path: "sys/internal/ui/mounts/" + path}
		a, err := p.read(ctx, http.MethodGet, key.Path)
		if err != nil {
			return nil, err
		}
		if a.Status != http.StatusOK {
			if below, err := p.mountsBelow(ctx, path+"/"); err == nil {
				return below, nil
			}
			return nil, refusal(a, "no mount is known at this path, or the warm-up may read nothing below it")
		}
		if m, ok = cache.ParseMount(ns, a.Body); !ok || m.Path != path && !strings.HasPrefix(path, m.Path+"/") {
			return nil, errRefused{why: "the origin's answer about the mount cannot be read; set THAW_KV_MOUNTS"}
		}
		if r, ok := cache.Interpret(key, m, a, cache.Index{}); ok && !cache.MatchPath(w.o.Skip, key.Path) && p.held() {
			p.store(&batch{records: []cache.Record{r}})
		}
		w.mounts[ns+"\x00"+m.Path] = m
	}
	if m.Version == 0 {
		return nil, errRefused{why: "not on a KV mount"}
	}
	at := &prefix{raw: raw, mount: m, folder: strings.Trim(strings.TrimPrefix(path, m.Path), "/")}
	at.also = !strings.HasSuffix(raw, "/") && at.folder != ""
	return []*prefix{at}, nil
}

func (w *Warmer) knownMount(namespace, path string) (cache.Mount, bool) {
	var best cache.Mount
	for _, m := range slices.AppendSeq(slices.Clone(w.o.Mounts), maps.Values(w.mounts)) {
		if m.Namespace == namespace && len(m.Path) > len(best.Path) && (path == m.Path || strings.HasPrefix(path, m.Path+"/")) {
			best = m
		}
	}
	return best, best.Path != ""
}

// mountsBelow asks for the KV mounts whose paths begin with above, of those that
// the warm-up's policies let it see anything of
// (vault/logical_system.go of hashicorp/vault v1.21.0, pathInternalUIMountsRead).
func (p *pass) mountsBelow(ctx context.Context, above string) ([]*prefix, error) {
	w, ns := p.w, p.audience.Namespace
	a, err := p.read(ctx, http.MethodGet, "sys/internal/ui/mounts")
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Secret map[string]struct {
				Type    string            `json:"type"`
				Options map[string]string `json:"options"`
			} `json:"secret"`
		} `json:"data"`
	}
	if a.Status != http.StatusOK || json.Unmarshal(a.Body, &answer) != nil {
		return nil, refusal(a, "may not see which mounts there are")
	}
	var out []*prefix
	for _, path := range slices.Sorted(maps.Keys(answer.Data.Secret)) {
		is := answer.Data.Secret[path]
		if is.Type != "kv" && is.Type != "generic" || !strings.HasPrefix(path, above) {
			continue
		}
		m := cache.Mount{Namespace: ns, Path: strings.TrimSuffix(path, "/"), Version: 1}
		if is.Options["version"] == "2" {
			m.Version = 2
		}
		w.mounts[ns+"\x00"+m.Path] = m
		out = append(out, &prefix{raw: path, mount: m})
	}
	if len(out) == 0 {
		return nil, errRefused{why: "the warm-up's policies let it see no KV mount here"}
	}
	return out, nil
}
