# The names are those of thaw's own settings, without THAW_. The README says which
# cache to choose: Azure has no managed memcached.

variable "cache_enable" {
  description = "CACHE_ENABLE: use the shared cache. It starts once it has a key; the output make_cache_key has the command that makes one for cache_key_keyvault."
  type        = bool
  default     = false
}

variable "memcached" {
  description = <<-EOT
    The memcached of the shared cache, by THAW_MEMCACHED and its like. `nodes` names one of your own: host[:port], comma-separated, all with
    tls:// before them or none. With `container_subnet_id` one is run in a container of Azure Container Instances, in a subnet that is delegated to
    Microsoft.ContainerInstance/containerGroups and that the app's subnet reaches: `image`, with `memory_mb` for cached secrets, and without TLS (what is in
    it is sealed, who reads when is not). `timeout` bounds one call; later is a miss. `cacert`, `client_cert` and `client_key` are files in the
    app's package, and `tls_server_name` is the name in the certificates, for a memcached of your own.
  EOT
  type = object({
    nodes               = optional(string)
    container_subnet_id = optional(string)
    image               = optional(string, "docker.io/library/memcached:1.6")
    memory_mb           = optional(number, 256)
    timeout             = optional(string, "20ms")
    cacert              = optional(string)
    tls_server_name     = optional(string)
    client_cert         = optional(string)
    client_key          = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.memcached.nodes == null || can(regex("^(tls://)?[^\\s/?#@,]+(,(tls://)?[^\\s/?#@,]+)*$", var.memcached.nodes))
    error_message = "Nodes are host[:port], comma-separated."
  }
  validation {
    condition     = !var.cache_enable || var.memcached.nodes != null || var.memcached.container_subnet_id != null
    error_message = "cache_enable needs memcached.nodes or memcached.container_subnet_id."
  }
  validation {
    condition     = var.memcached.nodes == null || var.memcached.container_subnet_id == null
    error_message = "memcached.nodes contradicts memcached.container_subnet_id: give one of them."
  }
  validation {
    condition     = var.memcached.memory_mb >= 64 && var.memcached.memory_mb <= 8192
    error_message = "The memory is from 64 to 8192 MB."
  }
  validation {
    condition     = can(regex("^[0-9]+(ms|s)$", var.memcached.timeout))
    error_message = "The timeout is a duration such as 20ms."
  }
}

variable "cache_key" {
  description = "THAW_CACHE_KEY: the key in clear instead of cache_key_keyvault, 32 bytes in base64. Whoever may read the app's settings, or this state, then reads it."
  type        = string
  default     = null
  sensitive   = true

  validation {
    condition     = var.cache_key == null || var.cache_key_keyvault == null
    error_message = "cache_key contradicts cache_key_keyvault: give one of them."
  }
}

variable "cache_key_keyvault" {
  description = "THAW_CACHE_KEY_KEYVAULT: data keys that Key Vault wrapped, as https://NAME.vault.azure.net/keys/KEY/VERSION#BASE64, comma-separated. The first writes, all read."
  type        = string
  default     = null

  validation {
    condition     = var.cache_key_keyvault == null || can(regex("^https://[^\\s,#]+/keys/[^\\s,#]+#[A-Za-z0-9+/=_-]+(,https://[^\\s,#]+/keys/[^\\s,#]+#[A-Za-z0-9+/=_-]+)*$", var.cache_key_keyvault))
    error_message = "Each key is https://NAME.vault.azure.net/keys/KEY/VERSION#BASE64: what the command of the output make_cache_key prints."
  }
}

variable "key_vault_id" {
  description = "Key Vault to make the wrapping key in; it must use RBAC. Null: one is created."
  type        = string
  default     = null
}

variable "audience" {
  description = "THAW_AUDIENCE: functions with the same audience and key share what is cached."
  type        = string
  default     = "thaw"

  validation {
    condition     = can(regex("^[\\w.:/-]+$", var.audience))
    error_message = "An audience is a word of letters, digits and .:/-_"
  }
}

variable "cache_ttl" {
  description = "CACHE_TTL: minutes until the warm-up reads a secret again whatever the cursor says."
  type        = number
  default     = 60

  validation {
    condition     = var.cache_ttl >= 1 && var.cache_ttl <= 525600 && floor(var.cache_ttl) == var.cache_ttl
    error_message = "cache_ttl is a whole number of minutes from 1 to 525600."
  }
}

variable "clock_skew" {
  description = "THAW_CLOCK_SKEW: how far the clocks of two instances may be apart."
  type        = string
  default     = "1s"

  validation {
    condition     = can(regex("^[0-9]+(ms|s|m)?$", var.clock_skew))
    error_message = "The skew is a duration such as 1s."
  }
}

variable "no_share_paths" {
  description = "THAW_NO_SHARE_PATHS: paths that never go to the shared cache."
  type        = list(string)
  default     = []
}

variable "max_age" {
  description = "THAW_MAX_AGE: how long a verification counts for later invocations. Above clock_skew, functions use each other's verifications."
  type        = string
  default     = "0"

  validation {
    condition     = can(regex("^[0-9]+(ms|s|m|h|d)?$", var.max_age))
    error_message = "max_age is a duration such as 10s."
  }
}

variable "stale_if_error" {
  description = "THAW_STALE_IF_ERROR: how long cached secrets are served while Vault is down. 0 for never."
  type        = string
  default     = "24h"

  validation {
    condition     = can(regex("^[0-9]+(ms|s|m|h|d)?$", var.stale_if_error))
    error_message = "stale_if_error is a duration such as 24h."
  }
}
