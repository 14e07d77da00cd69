# The layer and the demo function, outside a VPC.
# Before: make layer

terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80.0, < 6.0.0"
    }
  }
}

variable "vault_addr" {
  description = "Vault's address."
  type        = string
}

module "thaw" {
  source = "../.."

  vault_addr  = var.vault_addr
  secret_path = "secret/data/thaw-demo"
}

output "demo_role_arn" {
  description = "Let this role log in to Vault as thaw-demo."
  value       = module.thaw.demo_role_arn
}

output "layer_arns" {
  description = "Add one to a function of your own."
  value       = module.thaw.layer_arns
}
