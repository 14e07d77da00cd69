variable "name" {
  description = "Prefix of the names of policies and quotas."
  type        = string
  default     = "thaw"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,29}$", var.name))
    error_message = "A name is 1 to 30 lower-case letters, digits and dashes, and begins with a letter."
  }
}

variable "namespace" {
  description = "Namespace of Vault Enterprise or OpenBao, below the provider's own."
  type        = string
  default     = null
}

variable "functions" {
  description = "Functions that read secrets, by the name of their role: what each may read, and who logs in as it. secrets are KV mounts with their version and paths; a path that ends in / is a folder. events lets it hear of their changes, which Vault gives only with the right to list them."
  type = map(object({
    secrets = list(object({
      mount   = string
      version = optional(number, 2)
      paths   = list(string)
    }))
    list                     = optional(bool, false)
    events                   = optional(bool, false)
    aws_principal_arns       = optional(list(string), [])
    azure_service_principals = optional(list(string), [])
    azure_subscription_ids   = optional(list(string), [])
    azure_resource_groups    = optional(list(string), [])
    jwt_subject              = optional(string)
    jwt_bound_claims         = optional(map(string), {})
  }))

  validation {
    condition     = alltrue([for name, f in var.functions : can(regex("^[\\w.-]+$", name))])
    error_message = "A role's name is letters, digits and .-_"
  }
  validation {
    condition     = alltrue(flatten([for f in values(var.functions) : [for s in f.secrets : contains([1, 2], s.version) && length(s.paths) > 0]]))
    error_message = "KV has versions 1 and 2, and each mount needs a path: [\"\"] is the whole mount."
  }
  validation {
    condition = alltrue([for f in values(var.functions) :
      length(f.aws_principal_arns) + length(f.azure_service_principals) + length(f.azure_subscription_ids) > 0 || f.jwt_subject != null || length(f.jwt_bound_claims) > 0
    ])
    error_message = "A role that binds nobody could be taken by anybody: give aws_principal_arns, azure_service_principals, azure_subscription_ids, jwt_subject or jwt_bound_claims."
  }
}

variable "warmup" {
  description = "The warm-up: as a function, but it may list, too. Null for none. Its paths are those of THAW_WARM_PATHS."
  type = object({
    role = optional(string, "thaw-warmup")
    secrets = list(object({
      mount   = string
      version = optional(number, 2)
      paths   = list(string)
    }))
    aws_principal_arns       = optional(list(string), [])
    azure_service_principals = optional(list(string), [])
    azure_subscription_ids   = optional(list(string), [])
    azure_resource_groups    = optional(list(string), [])
    jwt_subject              = optional(string)
    jwt_bound_claims         = optional(map(string), {})
  })
  default = null
}

variable "openbao" {
  description = "The server is OpenBao: policies also allow to list folders with their metadata, which spares reads. Vault refuses such a policy."
  type        = bool
  default     = false
}

variable "token_type" {
  description = "Type of the tokens that logins give. A login with a service token writes to Vault's storage, which makes every function read its secrets again; batch does not."
  type        = string
  default     = "batch"

  validation {
    condition     = contains(["batch", "service", "default"], var.token_type)
    error_message = "The type is batch, service or default."
  }
}

variable "token_ttl" {
  description = "How long the tokens of logins live, in seconds."
  type        = number
  default     = 3600

  validation {
    condition     = var.token_ttl >= 60 && var.token_ttl <= 2764800 && floor(var.token_ttl) == var.token_ttl
    error_message = "Tokens live from 60 to 2764800 seconds."
  }
}

variable "token_no_default_policy" {
  description = "Leave Vault's default policy out. What thaw needs of it is in the policies of this module."
  type        = bool
  default     = true
}

variable "aws_path" {
  description = "Mount of the aws auth method (VAULT_AUTH_PROVIDER). Null where no function logs in by it."
  type        = string
  default     = "aws"
}

variable "create_aws" {
  description = "Enable the aws auth method at aws_path and configure it, instead of using a mount that exists."
  type        = bool
  default     = true
}

variable "aws_iam_server_id" {
  description = "Value that logins must sign as X-Vault-AWS-IAM-Server-ID (VAULT_IAM_SERVER_ID). Recommended: it keeps a login for this Vault from being used at another."
  type        = string
  default     = null
}

variable "aws_sts_region" {
  description = "Region whose STS Vault asks (VAULT_STS_ENDPOINT_REGION). Null for the global endpoint."
  type        = string
  default     = null
}

variable "aws_resolve_unique_ids" {
  description = "Bind roles by their unique ids, so that a role that is deleted and made again under its name is another one. Vault then needs iam:GetRole."
  type        = bool
  default     = true
}

variable "azure_path" {
  description = "Mount of the azure auth method. Null where no function logs in by it."
  type        = string
  default     = null
}

variable "azure_tenant_id" {
  description = "Tenant of the functions' managed identities."
  type        = string
  default     = null

  validation {
    condition     = var.azure_path == null || var.azure_tenant_id != null
    error_message = "azure_path needs azure_tenant_id."
  }
}

variable "azure_resource" {
  description = "What the managed identities' tokens are for (THAW_AZURE_RESOURCE), such as https://vault.example.com or an application's id."
  type        = string
  default     = "https://management.azure.com/"
}

variable "jwt_path" {
  description = "Mount of the jwt auth method, as OpenBao needs it, which has neither aws nor azure. Null for none."
  type        = string
  default     = null
}

variable "jwt_oidc_discovery_url" {
  description = "Issuer of the tokens: for managed identities https://login.microsoftonline.com/<tenant>/v2.0 or https://sts.windows.net/<tenant>/."
  type        = string
  default     = null

  validation {
    condition     = var.jwt_path == null || var.jwt_oidc_discovery_url != null
    error_message = "jwt_path needs jwt_oidc_discovery_url."
  }
  validation {
    condition     = var.jwt_oidc_discovery_url == null || can(regex("^https://", var.jwt_oidc_discovery_url))
    error_message = "The issuer is an https address."
  }
}

variable "jwt_audiences" {
  description = "Audiences that tokens must be for (THAW_AZURE_RESOURCE)."
  type        = list(string)
  default     = []

  validation {
    condition     = var.jwt_path == null || length(var.jwt_audiences) > 0
    error_message = "jwt_path needs jwt_audiences: a token for somebody else must not do here."
  }
}

variable "rate_limits" {
  description = "Rate limit quotas: requests per second by path, such as { \"secret/\" = 500 }."
  type        = map(number)
  default     = {}

  validation {
    condition     = alltrue([for r in values(var.rate_limits) : r > 0])
    error_message = "A rate is above 0."
  }
}

variable "exempt_from_rate_limits" {
  description = "Exempt sys/leader, which thaw asks at each invocation, from global quotas. It replaces Vault's list of exempt paths, whose own are kept. Not for a Vault whose list is managed elsewhere."
  type        = bool
  default     = false
}

variable "exempt_paths" {
  description = "Further paths that are exempt then."
  type        = list(string)
  default     = []
}
