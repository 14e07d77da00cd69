# Everything: ElastiCache with TLS, a KMS key, the warm-up, alarms.
# Before: make layer
# Apply it once without cache_key_kms, run the command that make_cache_key
# shows, and apply it again with what that prints.

terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80.0, < 7.0.0"
    }
  }
}

variable "vault_addr" {
  description = "Vault's address."
  type        = string
}

variable "vpc_id" {
  description = "VPC with a route to Vault."
  type        = string
}

variable "subnet_ids" {
  description = "Two or more private subnets of it."
  type        = list(string)
}

variable "cache_key_kms" {
  description = "What the command of make_cache_key printed."
  type        = string
  default     = null
}

module "thaw" {
  source = "../.."

  vault_addr          = var.vault_addr
  vault_iam_server_id = "vault.example.com" # as the mount's iam_server_id_header_value: see terraform/vault
  vpc_id              = var.vpc_id
  subnet_ids          = var.subnet_ids
  create_kms_endpoint = true

  cache_enable  = true
  audience      = "my-team"
  cache_key_kms = var.cache_key_kms
  max_age       = "10s" # functions use each other's verifications

  warmup = { paths = ["secret/"] }

  create_demo = true
}

output "make_cache_key" {
  description = "Run it, and pass on what it prints as cache_key_kms."
  value       = module.thaw.make_cache_key
}

output "warmup_role_arn" {
  description = "Let this role log in to Vault as thaw-warmup."
  value       = module.thaw.warmup_role_arn
}

output "demo_role_arn" {
  description = "Let this role log in to Vault as thaw-demo."
  value       = module.thaw.demo_role_arn
}
