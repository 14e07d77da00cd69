output "roles" {
  description = "VAULT_AUTH_ROLE of each function, with its policy."
  value       = { for name, r in local.roles : name => vault_policy.this[name].name }
}

output "policies" {
  description = "The policies' texts, by role."
  value       = { for name, p in module.policy : name => p.policy }
}

output "auth_providers" {
  description = "VAULT_AUTH_PROVIDER by kind."
  value       = { for kind, path in { aws = var.aws_path, azure = var.azure_path, jwt = var.jwt_path } : kind => path if path != null }
}
