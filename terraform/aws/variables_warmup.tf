variable "proactive_cache_enable" {
  description = "PROACTIVE_CACHE_ENABLE: create the warm-up function, which fills the shared cache ahead of reads."
  type        = bool
  default     = false

  validation {
    condition     = !var.proactive_cache_enable || var.cache_enable
    error_message = "proactive_cache_enable needs cache_enable."
  }
}

variable "new_proactive_cache_enable" {
  description = "NEW_PROACTIVE_CACHE_ENABLE: the recommended warm-up, with workers to choose and one backoff for all of them."
  type        = bool
  default     = true
}

variable "proactive_cache_workers" {
  description = "PROACTIVE_CACHE_WORKERS: secrets that the recommended warm-up reads at a time."
  type        = number
  default     = 3

  validation {
    condition     = var.proactive_cache_workers >= 1 && var.proactive_cache_workers <= 64 && floor(var.proactive_cache_workers) == var.proactive_cache_workers
    error_message = "There are 1 to 64 workers."
  }
}

variable "proactive_cache_minimum_fetching_time" {
  description = "PROACTIVE_CACHE_MINIMUM_FETCHING_TIME: minutes between two looks for changed secrets. 0 for every run."
  type        = number
  default     = 5

  validation {
    condition     = var.proactive_cache_minimum_fetching_time >= 0 && var.proactive_cache_minimum_fetching_time <= 525600 && floor(var.proactive_cache_minimum_fetching_time) == var.proactive_cache_minimum_fetching_time
    error_message = "The time is a whole number of minutes from 0 to 525600."
  }
}

variable "proactive_cache_dump_interval" {
  description = "PROACTIVE_CACHE_DUMP_INTERVAL: minutes between sealed backups to dump, without new_proactive_cache_enable only."
  type        = number
  default     = null

  validation {
    condition     = var.proactive_cache_dump_interval == null || try(var.proactive_cache_dump_interval >= 1 && var.proactive_cache_dump_interval <= 525600, false)
    error_message = "The interval is a whole number of minutes from 1 to 525600."
  }
  validation {
    condition     = var.proactive_cache_dump_interval == null || var.dump != null
    error_message = "proactive_cache_dump_interval needs dump."
  }
}

variable "dump" {
  description = "THAW_DUMP: where those backups go, s3://bucket/key in a bucket of your own."
  type        = string
  default     = null

  validation {
    condition     = var.dump == null || can(regex("^s3://[a-z0-9][a-z0-9.-]+/[^\\s?#*]*[^\\s?#*/]$", var.dump))
    error_message = "The place is s3://bucket/key."
  }
}

variable "warm_paths" {
  description = "THAW_WARM_PATHS: mounts and folders to warm for the audience."
  type        = list(string)
  default     = ["secret/"]

  validation {
    condition     = alltrue([for p in var.warm_paths : can(regex("^[^\\s?#*%,]+$", p))])
    error_message = "A path is a prefix such as secret/ or kv/app/, without wildcards."
  }
  validation {
    condition     = !var.proactive_cache_enable || length(var.warm_paths) > 0 || var.warm_audiences != null
    error_message = "The warm-up needs warm_paths or warm_audiences."
  }
}

variable "warm_audiences" {
  description = "THAW_WARM_AUDIENCES: several audiences instead of warm_paths, each with its prefixes and its own key in clear."
  type = list(object({
    audience  = string
    namespace = optional(string, "")
    paths     = list(string)
    key       = optional(string, "")
  }))
  default   = null
  sensitive = true
}

variable "warm_for" {
  description = "THAW_WARM_FOR: seconds that a run goes on to keep verifications young, such as 50 with a run a minute. Needs max_age above clock_skew. 0 for not."
  type        = number
  default     = 0

  validation {
    condition     = var.warm_for >= 0 && var.warm_for <= 290 && floor(var.warm_for) == var.warm_for
    error_message = "A run goes on for a whole number of seconds from 0 to 290: it ends ten seconds before the function's timeout."
  }
}

variable "warm_confirmed_only" {
  description = "THAW_WARM_CONFIRMED_ONLY: store only what some function of the audience is known to be allowed to read."
  type        = bool
  default     = false
}

variable "warmup_vault_auth_role" {
  description = "VAULT_AUTH_ROLE of the warm-up. It reads every path above, so guard it."
  type        = string
  default     = "thaw-warmup"
}

variable "warmup_schedule" {
  description = "When the warm-up runs. What a run does follows from cache_ttl and proactive_cache_minimum_fetching_time."
  type        = string
  default     = "rate(1 minute)"

  validation {
    condition     = can(regex("^(rate|cron)\\(.+\\)$", var.warmup_schedule))
    error_message = "The schedule is rate(...) or cron(...)."
  }
}

variable "warmup_reserve_concurrency" {
  description = "Keep the warm-up at one instance by reserving that one. false only in an account whose quota has no room; two runs at once do no harm."
  type        = bool
  default     = true
}
