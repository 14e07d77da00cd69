# The names are those of thaw's own settings, without THAW_.

variable "cache_enable" {
  description = "CACHE_ENABLE: use the shared cache. It starts once it has a key; the output make_cache_key has the command that makes one for cache_key_kms."
  type        = bool
  default     = false
}

variable "memcached" {
  description = <<-EOT
    The memcached of the shared cache, by THAW_MEMCACHED and its like. `nodes` names one of your own: host[:port], comma-separated, all with
    tls:// before them or none. Without, ElastiCache is created: `node_count` nodes of `node_type`, or with `serverless` one endpoint that grows
    by itself. `timeout` bounds one call; later is a miss. `cacert`, `client_cert` and `client_key` are files in the functions' packages, and
    `tls_server_name` is the name in the certificates, for a memcached of your own.
  EOT
  type = object({
    nodes           = optional(string)
    timeout         = optional(string, "20ms")
    cacert          = optional(string)
    tls_server_name = optional(string)
    client_cert     = optional(string)
    client_key      = optional(string)
    node_type       = optional(string, "cache.t4g.micro")
    node_count      = optional(number, 1)
    serverless      = optional(bool, false)
    max_gigabytes   = optional(number, 1) # serverless
    max_ecpu        = optional(number)    # serverless, ECPU a second; null for AWS's own limit
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.memcached.nodes == null || can(regex("^(tls://)?[^\\s/?#@,]+(,(tls://)?[^\\s/?#@,]+)*$", var.memcached.nodes))
    error_message = "Nodes are host[:port], comma-separated."
  }
  validation {
    condition     = !var.cache_enable || var.memcached.nodes != null || var.vpc_id != null
    error_message = "cache_enable without memcached.nodes creates ElastiCache, which needs vpc_id and subnet_ids."
  }
  validation {
    condition     = can(regex("^[0-9]+(ms|s)$", var.memcached.timeout))
    error_message = "The timeout is a duration such as 20ms."
  }
  validation {
    condition     = can(regex("^cache\\.[a-z0-9-]+\\.[a-z0-9]+$", var.memcached.node_type))
    error_message = "A node type is such as cache.t4g.micro."
  }
  validation {
    condition     = var.memcached.node_count >= 1 && var.memcached.node_count <= 40 && floor(var.memcached.node_count) == var.memcached.node_count
    error_message = "ElastiCache has 1 to 40 nodes."
  }
  validation {
    condition     = var.memcached.max_gigabytes >= 1 && var.memcached.max_gigabytes <= 5000 && floor(var.memcached.max_gigabytes) == var.memcached.max_gigabytes
    error_message = "ElastiCache Serverless holds 1 to 5000 GB."
  }
  validation {
    condition     = !(var.memcached.serverless && var.memcached.nodes != null)
    error_message = "memcached.serverless contradicts memcached.nodes: give one of them."
  }
}

variable "cache_key" {
  description = "THAW_CACHE_KEY: the key in clear instead of cache_key_kms, 32 bytes in base64. Whoever may read a function's configuration, or this state, then reads it."
  type        = string
  default     = null
  sensitive   = true

  validation {
    condition     = var.cache_key == null || var.cache_key_kms == null
    error_message = "cache_key contradicts cache_key_kms: give one of them."
  }
}

variable "cache_key_kms" {
  description = "THAW_CACHE_KEY_KMS: data keys that KMS encrypted, base64, comma-separated. The first writes, all read."
  type        = string
  default     = null

  validation {
    condition     = var.cache_key_kms == null || can(regex("^[A-Za-z0-9+/=_,-]+$", var.cache_key_kms))
    error_message = "The keys are base64, comma-separated: what the command of the output make_cache_key prints."
  }
}

variable "kms_key_arn" {
  description = "KMS key that encrypted cache_key_kms. Default: one is created for this audience."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.kms_key_arn))
    error_message = "The key is named by its ARN: arn:aws:kms:<region>:<account>:key/<id>."
  }
}

variable "audience_role_arns" {
  description = "Roles of your own functions that share the cache. The created KMS key lets them decrypt this audience's keys."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for a in var.audience_role_arns : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$", a))])
    error_message = "Each role is named by its ARN."
  }
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
