package events

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/thaw-project/thaw/extension/cache"
)

// event is one message of sys/events/subscribe with json=true, as far as it
// matters (the example in command/agentproxyshared/cache/
// static_secret_cache_updater.go of hashicorp/vault v1.21.0;
// https://developer.hashicorp.com/vault/docs/concepts/events).
type event struct {
	Data struct {
		Event struct {
			Metadata struct {
				Modified  string `json:"modified"` // "true" or "false"; a text
				Path      string `json:"path"`
				DataPath  string `json:"data_path"`
				Operation string `json:"operation"`
				Index     string `json:"vault_index"` // since 1.21
			} `json:"metadata"`
		} `json:"event"`
		Type      string `json:"event_type"`
		Namespace string `json:"namespace"` // with a slash at its end; empty: root
		Plugin    struct {
			Mount string `json:"mount_path"`
		} `json:"plugin_info"`
	} `json:"data"`
}

var errShape = errors.New("an event does not look like one of Vault's")

// change is what an event says.
type change struct {
	writes []*cache.Write
	index  string // the state of the change; empty: not told
}

// parse reads an event. It returns nil for one that changes nothing.
func parse(message []byte) (*change, error) {
	var e event
	if err := json.Unmarshal(message, &e); err != nil || e.Data.Type == "" {
		return nil, errShape // the text may name secrets' paths: it stays out of the error
	}
	m := e.Data.Event.Metadata
	if m.Modified == "false" || !strings.HasPrefix(e.Data.Type, "kv") {
		return nil, nil
	}
	if m.Path == "" {
		return nil, errShape
	}
	c := &change{index: m.Index}
	namespace := strings.Trim(e.Data.Namespace, "/")
	if strings.Contains(m.Operation, "config") || strings.HasSuffix(e.Data.Type, "/config-write") {
		// It may change what every key of the mount answers.
		c.writes = append(c.writes, cache.NewWrite(namespace, "sys/mounts"))
		return c, nil
	}
	for _, path := range [...]string{m.Path, m.DataPath} {
		if path == "" || len(c.writes) > 0 && path == m.Path {
			continue
		}
		if mount := strings.Trim(e.Data.Plugin.Mount, "/"); mount != "" && path != mount && !strings.HasPrefix(path, mount+"/") {
			path = mount + "/" + strings.TrimPrefix(path, "/") // before 1.15 a path was told as the mount has it
		}
		c.writes = append(c.writes, cache.NewWrite(namespace, path))
	}
	return c, nil
}
