variable "vault_addr" {
  description = "Vault's address, such as https://vault.example.com:8200."
  type        = string

  validation {
    condition     = can(regex("^https?://[^\\s/?#]+(/[^\\s?#]*)?$", var.vault_addr))
    error_message = "The address is http(s)://host[:port], such as https://vault.example.com:8200."
  }
}

variable "vault_namespace" {
  description = "VAULT_NAMESPACE: namespace of the login and of reads that name none."
  type        = string
  default     = null
}

variable "vault_cacert" {
  description = "VAULT_CACERT_BYTES: PEM text of the CA that signed Vault's certificate."
  type        = string
  default     = null

  validation {
    condition     = var.vault_cacert == null || can(regex("^\\s*-----BEGIN CERTIFICATE-----", var.vault_cacert))
    error_message = "The CA is PEM text: -----BEGIN CERTIFICATE-----..."
  }
}

variable "auth_method" {
  description = "THAW_AUTH_METHOD: azure, or jwt for OpenBao."
  type        = string
  default     = "azure"

  validation {
    condition     = contains(["azure", "jwt"], var.auth_method)
    error_message = "The method is azure or jwt."
  }
}

variable "vault_auth_provider" {
  description = "VAULT_AUTH_PROVIDER: mount of that method. Null: its name."
  type        = string
  default     = null
}

variable "vault_auth_role" {
  description = "VAULT_AUTH_ROLE of the app."
  type        = string
  default     = "thaw-demo"
}

variable "azure_resource" {
  description = "THAW_AZURE_RESOURCE: what the managed identity's token is for, as the mount in Vault expects it."
  type        = string
  default     = "https://management.azure.com/"
}

variable "log_level" {
  description = "VAULT_LOG_LEVEL: TRACE, DEBUG, INFO, WARN, ERROR or OFF."
  type        = string
  default     = "INFO"

  validation {
    condition     = contains(["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "OFF"], var.log_level)
    error_message = "The level is TRACE, DEBUG, INFO, WARN, ERROR or OFF."
  }
}
