package config

// Freshness says in words when a change in Vault is seen.
func (c Config) Freshness() string {
	within := "; within one, THAW_RECHECK=" + c.Recheck.String() + " later at most"
	switch {
	case c.Poll == PollOff && c.DefaultTTL > 0:
		return "when a VAULT_DEFAULT_CACHE_TTL of " + c.DefaultTTL.String() + " is over (THAW_POLL=off)"
	case c.Poll == PollOff:
		return "never while a secret is cached (THAW_POLL=off without VAULT_DEFAULT_CACHE_TTL)"
	case c.MaxAge > 0:
		return "THAW_MAX_AGE=" + c.MaxAge.String() + " late at most, for later invocations" + within
	case c.Poll == PollRead:
		return "at an invocation's first read" + within
	}
	return "at the next invocation" + within
}
