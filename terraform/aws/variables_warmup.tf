variable "warmup" {
  description = <<-EOT
    The warm-up function, which fills the shared cache ahead of reads (PROACTIVE_CACHE_ENABLE); null for none. `paths` are the mounts and folders
    to warm (THAW_WARM_PATHS); warmup_audiences names several audiences instead. `vault_auth_role` is its role in Vault: it reads every path,
    so guard it. `schedule` says when it runs; what a run does follows from cache_ttl and `minimum_fetching_time`, the minutes between two looks
    for changed secrets, 0 for every run. `recommended` is NEW_PROACTIVE_CACHE_ENABLE: `workers` to choose, and one backoff for all of them;
    without it sealed backups go to `dump` (s3://bucket/key in a bucket of your own) every `dump_interval` minutes. `run_for` is THAW_WARM_FOR:
    the seconds that a run goes on to keep verifications young, such as 50 with a run a minute; it needs max_age above clock_skew.
    `confirmed_only` stores only what some function of the audience is known to be allowed to read. `reserve_concurrency` keeps it at one
    instance; false only in an account whose quota has no room.
  EOT
  type = object({
    paths                 = optional(list(string), ["secret/"])
    vault_auth_role       = optional(string, "thaw-warmup")
    schedule              = optional(string, "rate(1 minute)")
    recommended           = optional(bool, true)
    workers               = optional(number, 3)
    minimum_fetching_time = optional(number, 5)
    dump                  = optional(string)
    dump_interval         = optional(number)
    run_for               = optional(number, 0)
    confirmed_only        = optional(bool, false)
    reserve_concurrency   = optional(bool, true)
  })
  default = null

  validation {
    condition     = var.warmup == null || var.cache_enable
    error_message = "warmup needs cache_enable."
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
    condition     = try(var.warmup.dump, null) == null || can(regex("^s3://[a-z0-9][a-z0-9.-]+/[^\\s?#*]*[^\\s?#*/]$", var.warmup.dump))
    error_message = "dump is s3://bucket/key."
  }
  validation {
    condition     = try(var.warmup.dump_interval, null) == null || try(var.warmup.dump_interval >= 1 && var.warmup.dump_interval <= 525600 && var.warmup.dump != null, false)
    error_message = "dump_interval is a whole number of minutes from 1 to 525600, and needs dump."
  }
  validation {
    condition     = try(var.warmup.run_for, 0) >= 0 && try(var.warmup.run_for, 0) <= 290 && floor(try(var.warmup.run_for, 0)) == try(var.warmup.run_for, 0)
    error_message = "A run goes on for a whole number of seconds from 0 to 290: it ends ten seconds before the function's timeout."
  }
  validation {
    condition     = can(regex("^(rate|cron)\\(.+\\)$", try(var.warmup.schedule, "rate(1 minute)")))
    error_message = "The schedule is rate(...) or cron(...)."
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
