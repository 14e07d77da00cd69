package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// EnableKV mounts a KV engine, version 1 or 2, and waits until it can be used:
// a new v2 mount answers 400 for a moment while it sets itself up.
func (v *Vault) EnableKV(ctx context.Context, mount string, version int) error {
	mount = strings.Trim(mount, "/")
	if err := v.rootDo(ctx, http.MethodPost, "sys/mounts/"+mount, map[string]any{
		"type": "kv", "options": map[string]string{"version": fmt.Sprint(version)},
	}); err != nil {
		return err
	}
	if version != 2 {
		return nil
	}
	var last error
	ready := func() bool { last = v.rootDo(ctx, http.MethodGet, mount+"/config", nil); return last == nil }
	if err := poll(ctx, 10*time.Millisecond, ready); err != nil {
		return fmt.Errorf("wait for the KV mount %s: %w (%w)", mount, err, last)
	}
	return nil
}

// PutKV1 writes a secret to a KV v1 mount.
func (v *Vault) PutKV1(ctx context.Context, mount, path string, data map[string]any) error {
	return v.rootDo(ctx, http.MethodPut, mount+"/"+path, data)
}

// DeleteKV1 deletes a secret from a KV v1 mount.
func (v *Vault) DeleteKV1(ctx context.Context, mount, path string) error {
	return v.rootDo(ctx, http.MethodDelete, mount+"/"+path, nil)
}

// Put writes a new version to a KV v2 mount and returns its number.
func (v *Vault) Put(ctx context.Context, mount, path string, data map[string]any) (int, error) {
	r, err := v.Root(ctx, http.MethodPost, mount+"/data/"+path, map[string]any{"data": data})
	if err != nil {
		return 0, err
	}
	var out struct {
		Data struct{ Version int }
	}
	if err := r.JSON(&out); err != nil {
		return 0, err
	}
	return out.Data.Version, nil
}

// Patch merges data into the latest version of a KV v2 secret.
func (v *Vault) Patch(ctx context.Context, mount, path string, data map[string]any) error {
	return v.mergePatch(ctx, mount+"/data/"+path, map[string]any{"data": data})
}

// Delete marks the latest version of a KV v2 secret deleted.
func (v *Vault) Delete(ctx context.Context, mount, path string) error {
	return v.rootDo(ctx, http.MethodDelete, mount+"/data/"+path, nil)
}

// DeleteVersions marks versions of a KV v2 secret deleted.
func (v *Vault) DeleteVersions(ctx context.Context, mount, path string, versions ...int) error {
	return v.versions(ctx, mount+"/delete/"+path, versions)
}

// Undelete brings deleted versions of a KV v2 secret back.
func (v *Vault) Undelete(ctx context.Context, mount, path string, versions ...int) error {
	return v.versions(ctx, mount+"/undelete/"+path, versions)
}

// Destroy removes the data of versions of a KV v2 secret for good.
func (v *Vault) Destroy(ctx context.Context, mount, path string, versions ...int) error {
	return v.versions(ctx, mount+"/destroy/"+path, versions)
}

func (v *Vault) versions(ctx context.Context, path string, versions []int) error {
	return v.rootDo(ctx, http.MethodPut, path, map[string]any{"versions": versions})
}

// PutMetadata replaces the metadata settings of a KV v2 secret, such as
// custom_metadata, max_versions or delete_version_after.
func (v *Vault) PutMetadata(ctx context.Context, mount, path string, settings map[string]any) error {
	return v.rootDo(ctx, http.MethodPost, mount+"/metadata/"+path, settings)
}

// PatchMetadata merges into the metadata settings of a KV v2 secret.
func (v *Vault) PatchMetadata(ctx context.Context, mount, path string, settings map[string]any) error {
	return v.mergePatch(ctx, mount+"/metadata/"+path, settings)
}

// DeleteMetadata removes a KV v2 secret with all its versions.
func (v *Vault) DeleteMetadata(ctx context.Context, mount, path string) error {
	return v.rootDo(ctx, http.MethodDelete, mount+"/metadata/"+path, nil)
}

// mergePatch sends a PATCH, which Vault takes as a JSON merge patch only
// (RFC 7396).
func (v *Vault) mergePatch(ctx context.Context, path string, body any) error {
	j, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r, err := v.Do(ctx, Call{
		Method: http.MethodPatch, Path: path, Token: v.rootToken, Body: j,
		Header: http.Header{"Content-Type": {"application/merge-patch+json"}},
	})
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return fmt.Errorf("PATCH %s: %w", path, err)
	}
	return nil
}
