variable "name" {
  description = "Prefix of the names of everything that is made."
  type        = string
  default     = "thaw"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,29}$", var.name))
    error_message = "A name is 1 to 30 lower-case letters, digits and dashes, and begins with a letter."
  }
}

variable "artifacts_dir" {
  description = "Folder with the zips that `make layer` makes. Default: the repository's dist."
  type        = string
  default     = null
}

variable "layers" {
  description = "Architectures to publish the layer for."
  type        = set(string)
  default     = ["arm64", "x86_64"]

  validation {
    condition     = length(setsubtract(var.layers, ["arm64", "x86_64"])) == 0
    error_message = "Architectures are arm64 and x86_64."
  }
}

variable "create_demo" {
  description = "Create the demo function, which reads secrets through the layer and says how that went."
  type        = bool
  default     = true
}

variable "architecture" {
  description = "Architecture of the demo and warm-up functions: arm64 or x86_64."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "The architecture is arm64 or x86_64."
  }
  validation {
    condition     = !var.create_demo || contains(var.layers, var.architecture)
    error_message = "The demo function needs the layer of its architecture: add it to layers."
  }
}

variable "secret_path" {
  description = "API path of the secret that the demo function reads; comma-separated for more than one."
  type        = string
  default     = "secret/data/thaw-demo"

  validation {
    condition     = can(regex("^[^\\s?#]+$", var.secret_path))
    error_message = "The path is an API path such as secret/data/thaw-demo."
  }
}

variable "log_level" {
  description = "VAULT_LOG_LEVEL of both functions: TRACE, DEBUG, INFO, WARN, ERROR or OFF."
  type        = string
  default     = "INFO"

  validation {
    condition     = contains(["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "OFF"], var.log_level)
    error_message = "The level is TRACE, DEBUG, INFO, WARN, ERROR or OFF."
  }
}

variable "log_retention_days" {
  description = "Days that logs are kept; one of CloudWatch's numbers."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "CloudWatch keeps logs for 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653 days."
  }
}

variable "alarm_topic_arns" {
  description = "SNS topics that alarms notify."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for a in var.alarm_topic_arns : can(regex("^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:.+$", a))])
    error_message = "Each topic is named by its ARN."
  }
}

variable "environment" {
  description = "Further settings of thaw for both functions, by their names in the README, such as { THAW_POLL_TIMEOUT = \"300ms\" }. They win over those of this module."
  type        = map(string)
  default     = {}
}

variable "tags" {
  description = "Tags of everything that has tags."
  type        = map(string)
  default     = {}
}
