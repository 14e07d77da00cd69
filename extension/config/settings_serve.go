package config

import "time"

// listenerSettings is what callers may do.
func listenerSettings(rows []setting) []setting {
	return append(rows,
		text("THAW_CONFIG", "file", func(d *draft) *string { return &d.configFile },
			"Vault Proxy's configuration file, HCL or JSON. Variables win over it."),
		parsed("THAW_LISTEN", "127.0.0.1:8200", "ip:port or unix:///path, comma-separated", parseListen,
			"Addresses to serve on. With the default also `[::1]:8200` where there is one."),
		parsed("THAW_REQUIRE_REQUEST_HEADER", "", "true or false", func(d *draft, v string) error {
			b, err := parseBool(v)
			d.requireHeader = &b
			return err
		}, "Require `X-Vault-Request: true` of callers, as Vault Proxy's `require_request_header`. Default: false, or as the file says."),
		hidden("THAW_LOCAL_TOKEN", "text", func(d *draft) *Secret { return &d.LocalToken },
			"If set, callers must send it in `X-Thaw-Token`."),
		parsed("THAW_ALLOWED_HOSTS", "", "host names, comma-separated", parseHosts,
			"Host names accepted besides loopback ones, for listeners that are not on loopback."),
		size("THAW_MAX_BODY", "32MiB", 1<<10, 1<<30, func(d *draft, n int64) { d.MaxBody = n },
			"Longest body of a request."),
		size("THAW_MAX_HEADER", "64KiB", 4<<10, 1<<20, func(d *draft, n int64) { d.MaxHeader = int(n) },
			"Longest head of a request."),
		number("THAW_MAX_CONNS", "1024", 1, 65536, func(d *draft) *int { return &d.MaxConns },
			"Open connections of callers; when there are so many, an idle one gives way to a new one."),
		duration("THAW_HEADER_TIMEOUT", "5s", 100*time.Millisecond, time.Minute, func(d *draft) *time.Duration { return &d.HeaderTimeout },
			"A caller's time to send its head."),
		duration("THAW_BODY_TIMEOUT", "30s", 100*time.Millisecond, time.Hour, func(d *draft) *time.Duration { return &d.BodyTimeout },
			"A caller's longest pause while it sends or takes a body."),
		number("THAW_MAX_PROCS", "0", 0, 1024, func(d *draft) *int { return &d.MaxProcs },
			"Processors used at a time. `0`: one in Lambda, where the function needs them more, but under Managed Instances and elsewhere as Go chooses (`GOMAXPROCS`)."),
		choice("VAULT_LOG_LEVEL", "INFO", func(d *draft, v string) { d.LogLevel = levelOf(v) },
			"What is logged.", "TRACE", "DEBUG", "INFO", "WARN", "ERROR", "OFF"),
		flag("THAW_EMF", "false", func(d *draft) *bool { return &d.EMF },
			"Write CloudWatch embedded metric lines to standard output: one per invocation; under Managed Instances, in `thaw proxy` and thaw-azure one for each minute in which something was done; one per run of the warm-up."),
		flag("THAW_ACCESS_LOG", "false", func(d *draft) *bool { return &d.AccessLog },
			"Write a JSON line for each request to standard output: path, status, hit or miss, whose token. Hits don't reach Vault's audit log."),
	)
}

// cacheSettings is what is kept, and for how long.
func cacheSettings(rows []setting) []setting {
	return append(rows,
		size("THAW_CACHE_BYTES", "16MiB", 0, 64<<30, func(d *draft, n int64) { d.CacheBytes = n },
			"Memory for cached answers. `0`: nothing is cached."),
		parsed("VAULT_DEFAULT_CACHE_ENABLED", "", "true or false", func(d *draft, v string) error {
			b, err := parseBool(v)
			d.CacheDefault = CacheNone
			if b {
				d.CacheDefault = CacheAll
			}
			return err
		}, "`true`: every GET may be cached; `false`: nothing, unless a request asks. Unset: KV secrets."),
		duration("VAULT_DEFAULT_CACHE_TTL", "", 0, 365*day, func(d *draft) *time.Duration { return &d.DefaultTTL },
			"Longest age of a cached answer, and what GETs other than KV need to be cached."),
		parsed("THAW_KV_MOUNTS", "", "path=1 or path=2, comma-separated", parseKVMounts,
			"KV mounts that thaw need not ask Vault about."),
		parsed("THAW_NO_CACHE_PATHS", "", "paths, comma-separated", parsePatterns,
			"Paths that are never cached. `*` at the end is any rest, `+` one segment."),
		duration("THAW_NEGATIVE_TTL", "0", 0, day, func(d *draft) *time.Duration { return &d.NegativeTTL },
			"How long a 404 of a KV path may be kept. `0`: not at all."),
		duration("THAW_STALE_IF_ERROR", "24h", 0, 365*day, func(d *draft) *time.Duration { return &d.StaleIfError },
			"How long cached secrets are served while Vault is down. `0`: never."),
		duration("THAW_CAPABILITY_REFRESH_INTERVAL", "5m", time.Second, 30*day, func(d *draft) *time.Duration { return &d.RefreshInterval },
			"How long a permission counts before Vault is asked again."),
		choice("THAW_CAPABILITY_REFRESH_BEHAVIOR", "optimistic", func(d *draft, v string) { d.Pessimistic = v == "pessimistic" },
			"When Vault cannot be asked: `optimistic` goes on serving, `pessimistic` stops.", "optimistic", "pessimistic"),
	)
}

// pollSettings is how cached answers are kept fresh.
func pollSettings(rows []setting) []setting {
	return append(rows,
		choice("THAW_POLL", string(PollInvoke), func(d *draft, v string) { d.Poll = PollMode(v) },
			"When cached secrets are verified: at each invocation, at its first read, or never (a TTL only).",
			string(PollInvoke), string(PollRead), string(PollOff)),
		duration("THAW_MAX_AGE", "0", 0, day, func(d *draft) *time.Duration { return &d.MaxAge },
			"How long a verification counts for later invocations."),
		duration("THAW_RECHECK", "1s", 10*time.Millisecond, time.Hour, func(d *draft) *time.Duration { return &d.Recheck },
			"How old a verification may get within an invocation."),
		duration("THAW_POLL_TIMEOUT", "500ms", 10*time.Millisecond, time.Minute, func(d *draft) *time.Duration { return &d.PollTimeout },
			"How long a read waits for its verification."),
		number("THAW_POLL_CONCURRENCY", "8", 1, 256, func(d *draft) *int { return &d.PollConcurrency },
			"Secrets that are verified at a time."),
		parsed("THAW_PREFETCH", "", "API paths, comma-separated", parsePrefetch,
			"Secrets read at the first invocation, under Managed Instances and in `thaw proxy` at the start, such as `secret/data/app`."),
	)
}

// fileSettings is file mode.
func fileSettings(rows []setting) []setting {
	return append(rows,
		choice("VAULT_RUN_MODE", string(RunDefault), func(d *draft, v string) { d.RunMode = RunMode(v) },
			"`file` only writes files, `proxy` only serves, `default` does both.",
			string(RunDefault), string(RunFile), string(RunProxy)),
		text(pairPath, "API path", func(d *draft) *string { return &d.secretPath },
			"Secret to write to a file. More of them: `VAULT_SECRET_PATH_<NAME>`."),
		text(pairFile, "file", func(d *draft) *string { return &d.secretFile },
			"That file, by default `/tmp/vault/secret.json`. Relative: under `/tmp/vault`. More of them: `VAULT_SECRET_FILE_<NAME>`."),
		duration("THAW_FILE_TIMEOUT", "5s", 100*time.Millisecond, 10*time.Minute, func(d *draft) *time.Duration { return &d.FileTimeout },
			"Longest time for writing the files before the function starts."),
		flag("THAW_FILE_OPTIONAL", "false", func(d *draft) *bool { return &d.FileOptional },
			"Start without a file that cannot be had."),
	)
}
