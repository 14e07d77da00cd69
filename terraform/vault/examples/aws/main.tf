# Roles for Lambda functions and their warm-up. The ARNs are outputs of
# terraform/aws.

terraform {
  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = ">= 4.4.0, < 6.0.0"
    }
  }
}

variable "demo_role_arn" {
  description = "Output demo_role_arn of terraform/aws."
  type        = string
}

variable "warmup_role_arn" {
  description = "Output warmup_role_arn of terraform/aws."
  type        = string
}

module "thaw" {
  source = "../.."

  aws_iam_server_id = "vault.example.com"
  functions = {
    thaw-demo = {
      secrets            = [{ mount = "secret", paths = ["thaw-demo"] }]
      aws_principal_arns = [var.demo_role_arn]
    }
  }
  warmup = {
    secrets            = [{ mount = "secret", paths = [""] }]
    aws_principal_arns = [var.warmup_role_arn]
  }
  rate_limits             = { "secret/" = 500 }
  exempt_from_rate_limits = true
}
