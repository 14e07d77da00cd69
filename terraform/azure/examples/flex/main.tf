# A Flex Consumption app, its cache in memory alone.

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

module "thaw" {
  source = "../.."

  resource_group_name = var.resource_group_name
  location            = "westeurope"
  vault_addr          = var.vault_addr
  azure_resource      = "https://vault.example.com"
}

output "principal_id" {
  description = "Let this principal log in to Vault as thaw-demo."
  value       = module.thaw.principal_id
}
