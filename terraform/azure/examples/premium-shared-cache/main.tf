# A Premium app with a shared cache in a container of its own, and the warm-up.
# Apply it once without cache_key_keyvault, run the command that make_cache_key
# shows, and apply it again with what that prints.

terraform {
  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = ">= 4.30.0, < 5.0.0"
    }
  }
}

provider "azurerm" {
  features {}
  storage_use_azuread = true # the storage account has no keys
}

variable "resource_group_name" {
  description = "Name of an existing resource group."
  type        = string
}

variable "vault_addr" {
  description = "Vault's address."
  type        = string
}

variable "subnet_id" {
  description = "Subnet delegated to Microsoft.Web/serverFarms."
  type        = string
}

variable "memcached_subnet_id" {
  description = "Subnet delegated to Microsoft.ContainerInstance/containerGroups."
  type        = string
}

variable "cache_key_keyvault" {
  description = "What the command of make_cache_key printed."
  type        = string
  default     = null
}

module "thaw" {
  source = "../.."

  resource_group_name = var.resource_group_name
  location            = "westeurope"
  plan                = "premium"
  subnet_id           = var.subnet_id
  vault_addr          = var.vault_addr

  cache_enable       = true
  memcached          = { container_subnet_id = var.memcached_subnet_id }
  cache_key_keyvault = var.cache_key_keyvault
  audience           = "my-team"

  warmup = { paths = ["secret/"] }
}

output "principal_id" {
  description = "Let this principal log in to Vault."
  value       = module.thaw.principal_id
}

output "make_cache_key" {
  description = "Run it, and pass on what it prints as cache_key_keyvault."
  value       = module.thaw.make_cache_key
}
