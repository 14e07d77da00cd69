# Roles for function apps on Azure: the azure method in Vault, or jwt in OpenBao.

terraform {
  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = ">= 4.4.0, < 6.0.0"
    }
  }
}

variable "tenant_id" {
  description = "Tenant of the managed identity."
  type        = string
}

variable "principal_id" {
  description = "Output principal_id of terraform/azure."
  type        = string
}

variable "openbao" {
  description = "The origin is OpenBao, which has no azure method."
  type        = bool
  default     = false
}

locals {
  audience = "https://vault.example.com"
}

module "thaw" {
  source = "../.."

  aws_path               = null
  azure_path             = var.openbao ? null : "azure"
  azure_tenant_id        = var.tenant_id
  azure_resource         = local.audience
  jwt_path               = var.openbao ? "jwt" : null
  jwt_oidc_discovery_url = "https://sts.windows.net/${var.tenant_id}/"
  jwt_audiences          = [local.audience]

  functions = {
    thaw-demo = {
      secrets                  = [{ mount = "secret", paths = ["thaw-demo"] }]
      azure_service_principals = var.openbao ? [] : [var.principal_id]
      jwt_subject              = var.openbao ? var.principal_id : null
    }
  }
}
