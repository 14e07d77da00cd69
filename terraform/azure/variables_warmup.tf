variable "warmup" {
  description = <<-EOT
    The warm-up, which a timer function of the app runs to fill the shared cache ahead of reads (PROACTIVE_CACHE_ENABLE); null for none. `function` is that
    function's name (THAW_WARM_FUNCTION). `paths` are the mounts and folders to warm (THAW_WARM_PATHS); warmup_audiences names several audiences
    instead. What a run does follows from cache_ttl and `minimum_fetching_time`, the minutes between two looks for changed secrets, 0 for every run.
    `recommended` is NEW_PROACTIVE_CACHE_ENABLE: `workers` to choose, and one backoff for all of them; without it sealed backups go to `dump` (a blob's
    address) every `dump_interval` minutes. `run_for` is THAW_WARM_FOR: the seconds that a run goes on to keep verifications young; it needs max_age
    above clock_skew. `confirmed_only` stores only what some function of the audience is known to be allowed to read.
  EOT
  type = object({
    paths                 = optional(list(string), ["secret/"])
    function              = optional(string, "ThawWarmup")
    recommended           = optional(bool, true)
    workers               = optional(number, 3)
    minimum_fetching_time = optional(number, 5)
    dump                  = optional(string)
    dump_interval         = optional(number)
    run_for               = optional(number, 0)
    confirmed_only        = optional(bool, false)
  })
  default = null

  validation {
    condition     = var.warmup == null || var.cache_enable
    error_message = "warmup needs cache_enable."
  }
  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9_-]{0,126}$", try(var.warmup.function, "ThawWarmup")))
    error_message = "A function's name is letters, digits, - and _."
  }
  validation {
    condition     = alltrue([for p in try(var.warmup.paths, []) : can(regex("^[^\\s?#*%,]+$", p))])
    error_message = "A path is a prefix such as secret/ or kv/app/, without wildcards."
  }
  validation {
    condition     = var.warmup == null || try(length(var.warmup.paths), 0) > 0 || var.warmup_audiences != null
    error_message = "The warm-up needs paths or warmup_audiences."
  }
  validation {
    condition     = try(var.warmup.workers, 1) >= 1 && try(var.warmup.workers, 1) <= 64 && floor(try(var.warmup.workers, 1)) == try(var.warmup.workers, 1)
    error_message = "There are 1 to 64 workers."
  }
  validation {
    condition     = try(var.warmup.minimum_fetching_time, 0) >= 0 && try(var.warmup.minimum_fetching_time, 0) <= 525600 && floor(try(var.warmup.minimum_fetching_time, 0)) == try(var.warmup.minimum_fetching_time, 0)
    error_message = "minimum_fetching_time is a whole number of minutes from 0 to 525600."
  }
  validation {
    condition     = try(var.warmup.dump, null) == null || can(regex("^https://[^\\s/?#]+/[^\\s?#]*[^\\s?#/]$", var.warmup.dump))
    error_message = "The place is a blob's address, https://ACCOUNT.blob.core.windows.net/CONTAINER/NAME."
  }
  validation {
    condition     = try(var.warmup.dump_interval, null) == null || try(var.warmup.dump_interval >= 1 && var.warmup.dump_interval <= 525600 && var.warmup.dump != null, false)
    error_message = "dump_interval is a whole number of minutes from 1 to 525600, and needs dump."
  }
  validation {
    condition     = try(var.warmup.run_for, 0) >= 0 && try(var.warmup.run_for, 0) <= 3600 && floor(try(var.warmup.run_for, 0)) == try(var.warmup.run_for, 0)
    error_message = "A run goes on for a whole number of seconds from 0 to 3600."
  }
}

variable "warmup_audiences" {
  description = "THAW_WARM_AUDIENCES: several audiences instead of warmup.paths, each with its prefixes and its own key in clear."
  type = list(object({
    audience  = string
    namespace = optional(string, "")
    paths     = list(string)
    key       = optional(string, "")
  }))
  default   = null
  sensitive = true
}

variable "dump_scope_id" {
  description = "Resource id of the container, or storage account, of warmup.dump: the app may then write there. Null: the right is given elsewhere."
  type        = string
  default     = null
}
