# The app settings that configure thaw, made of nothing but variables, so that
# a test can have thaw read them. What is null or empty is left out.

terraform {
  required_version = ">= 1.9.0"
}

variable "settings" {
  description = "Everything that becomes a setting, by the names of the module's variables."
  type        = any
  sensitive   = true
}

locals {
  s = var.settings
  # Nothing goes to the cache unsealed: without a key the app does without.
  on        = local.s.cache_enable && local.s.memcached != null && (local.s.cache_key != null || local.s.cache_key_keyvault != null || local.s.warm_audiences != null)
  warm      = local.on && local.s.proactive_cache_enable
  audiences = local.s.warm_audiences == null ? null : jsonencode([for a in local.s.warm_audiences : { for k, v in a : k => v if v != "" }])

  all = {
    VLE_VAULT_ADDR       = local.s.vault_addr # VAULT_ADDR then is free for clients in the app
    VAULT_NAMESPACE      = local.s.vault_namespace
    VAULT_CACERT_BYTES   = local.s.vault_cacert
    THAW_AUTH_METHOD     = local.s.auth_method
    VAULT_AUTH_PROVIDER  = local.s.vault_auth_provider
    VAULT_AUTH_ROLE      = local.s.vault_auth_role
    VAULT_LOG_LEVEL      = local.s.log_level
    THAW_AZURE_RESOURCE  = local.s.azure_resource
    THAW_AZURE_PLAN      = local.s.plan
    THAW_AZURE_CLIENT_ID = local.s.client_id
    THAW_MAX_AGE         = local.s.max_age
    THAW_STALE_IF_ERROR  = local.s.stale_if_error
    CACHE_ENABLE         = tostring(local.on)
  }
  cache = {
    CACHE_TTL                      = tostring(local.s.cache_ttl)
    THAW_MEMCACHED                 = local.s.memcached
    THAW_MEMCACHED_TIMEOUT         = local.s.memcached_timeout
    THAW_MEMCACHED_CACERT          = local.s.memcached_cacert
    THAW_MEMCACHED_TLS_SERVER_NAME = local.s.memcached_tls_server_name
    THAW_MEMCACHED_CLIENT_CERT     = local.s.memcached_client_cert
    THAW_MEMCACHED_CLIENT_KEY      = local.s.memcached_client_key
    THAW_CACHE_KEY                 = local.s.cache_key
    THAW_CACHE_KEY_KEYVAULT        = local.s.cache_key_keyvault
    THAW_AUDIENCE                  = local.s.audience
    THAW_CLOCK_SKEW                = local.s.clock_skew
    THAW_NO_SHARE_PATHS            = join(",", local.s.no_share_paths)
  }
  warmup = {
    PROACTIVE_CACHE_ENABLE                = "true"
    NEW_PROACTIVE_CACHE_ENABLE            = tostring(local.s.new_proactive_cache_enable)
    PROACTIVE_CACHE_WORKERS               = local.s.new_proactive_cache_enable ? tostring(local.s.proactive_cache_workers) : null
    PROACTIVE_CACHE_MINIMUM_FETCHING_TIME = tostring(local.s.proactive_cache_minimum_fetching_time)
    PROACTIVE_CACHE_DUMP_INTERVAL         = local.s.new_proactive_cache_enable || local.s.proactive_cache_dump_interval == null ? null : tostring(local.s.proactive_cache_dump_interval)
    THAW_DUMP                             = local.s.dump
    THAW_WARM_PATHS                       = local.audiences == null ? join(",", local.s.warm_paths) : null
    THAW_WARM_AUDIENCES                   = local.audiences
    THAW_WARM_FOR                         = tostring(local.s.warm_for)
    THAW_WARM_CONFIRMED_ONLY              = tostring(local.s.warm_confirmed_only)
    THAW_WARM_FUNCTION                    = local.s.warm_function
  }
}

output "app_settings" {
  description = "App settings by name."
  value       = { for k, v in merge(local.all, { for k, v in local.cache : k => v if local.on }, { for k, v in local.warmup : k => v if local.warm }) : k => v if v != null && v != "" }
  sensitive   = true
}
