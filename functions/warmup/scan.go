package warmup

import (
	"context"
	"errors"
	"net/http"

	"github.com/thaw-project/thaw/extension/wire"
)

// errNoScan says that the origin, or its policies, know no recursive list.
var errNoScan = errors.New("no recursive list")

// scans reports whether the origin may list recursively: OpenBao, from 2.2,
// by the method SCAN (https://openbao.org/docs/rfcs/scan-operation).
func (w *Warmer) scans(ctx context.Context) bool {
	if w.o.Asker == nil {
		return false
	}
	lists, known := w.cursor.Lists()
	if !known {
		w.cursor.WillList()
		w.cursor.Learn(ctx)
		lists, _ = w.cursor.Lists()
	}
	return lists
}

// scan lists a prefix in one request, with metadata where that is to be had. It
// needs a capability of its own, "scan"; without it the error is errNoScan.
func (k *walker) scan(ctx context.Context) ([]item, error) {
	folder := join(k.at.lists(), k.at.folder)
	names, heads, err := k.detailed(ctx)
	if errors.Is(err, errNoScan) {
		names, err = k.plainScan(ctx, folder)
	}
	if err != nil {
		return nil, err
	}
	items := make([]item, 0, len(names)+1)
	for _, name := range names {
		if name != "" && name[len(name)-1] != '/' && k.p.addressable(folder, name) {
			it := k.at.secret(name)
			it.head = heads[name]
			items = append(items, it)
		}
	}
	return items, nil
}

// plainScan gives the names alone.
func (k *walker) plainScan(ctx context.Context, folder string) (names []string, err error) {
	a, err := k.p.w.read(ctx, "SCAN", k.p.l.audience.Namespace, folder)
	switch {
	case errors.As(err, new(errRefused)):
		return nil, errNoScan
	case err != nil:
		return nil, err
	case a.Status == http.StatusOK:
		if names, err = keysOf(a.Body); err != nil {
			return nil, errNoScan
		}
	case wire.New(a.Status, nil, a.Body).Reason() == wire.Nothing:
	default:
		k.p.w.o.Log.Info("the origin does not list recursively for us; listing folder by folder", "status", a.Status)
		return nil, errNoScan
	}
	return names, nil
}
