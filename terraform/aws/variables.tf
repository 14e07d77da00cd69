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
  description = "Create a demo function, which reads secrets through the layer and says how that went."
  type        = bool
  default     = false
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
  description = "VAULT_LOG_LEVEL of the demo and warm-up functions: TRACE, DEBUG, INFO, WARN, ERROR or OFF."
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

variable "create_alarms" {
  description = "Create the alarms. THAW_EMF is on in the output environment where there are alarms or the dashboard."
  type        = bool
  default     = true
}

variable "create_dashboard" {
  description = "Create the dashboard."
  type        = bool
  default     = true
}

variable "logs_kms_key_arn" {
  description = "KMS key that encrypts the log groups. Its policy has to allow logs.<region>.amazonaws.com. Null for CloudWatch's own."
  type        = string
  default     = null
}

variable "environment_kms_key_arn" {
  description = "KMS key that encrypts the functions' variables. The functions' roles get kms:Decrypt on it. Null for Lambda's own."
  type        = string
  default     = null
}

variable "role_path" {
  description = "Path of the roles that are made."
  type        = string
  default     = "/"

  validation {
    condition     = can(regex("^/([!-.0-~]+/)*$", var.role_path))
    error_message = "A path begins and ends with a slash, such as /thaw/."
  }
}

variable "permissions_boundary" {
  description = "ARN of the policy that bounds the roles that are made. Null for none."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary == null || can(regex("^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/.+$", var.permissions_boundary))
    error_message = "The boundary is a policy's ARN."
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
  description = "Further settings of thaw for the demo and warm-up functions, by their names in docs/settings.md, such as { THAW_POLL_TIMEOUT = \"300ms\" }. They win over those of this module."
  type        = map(string)
  default     = {}
}

variable "tags" {
  description = "Tags of everything that has tags."
  type        = map(string)
  default     = {}
}
