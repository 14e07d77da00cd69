output "layer_arns" {
  description = "Layer versions by architecture, for the layers of your own functions."
  value       = { for arch, layer in aws_lambda_layer_version.this : arch => layer.arn }
}

output "environment" {
  description = "Variables for your own functions with the layer; add VAULT_AUTH_ROLE."
  value       = { for k, v in merge(local.common, local.cache_on ? local.cache_env : {}) : k => v if v != null && v != "" }
  sensitive   = true
}

output "demo_function_name" {
  description = "Invoke it to see thaw work. Null without it."
  value       = one(aws_lambda_function.demo[*].function_name)
}

output "demo_role_arn" {
  description = "bound_iam_principal_arn of the Vault role vault_auth_role."
  value       = one(aws_iam_role.demo[*].arn)
}

output "warmup_function_name" {
  description = "The warm-up function. Null without it."
  value       = one(aws_lambda_function.warmup[*].function_name)
}

output "warmup_role_arn" {
  description = "bound_iam_principal_arn of the Vault role warmup.vault_auth_role."
  value       = one(aws_iam_role.warmup[*].arn)
}

output "memcached" {
  description = "THAW_MEMCACHED for further functions."
  value       = var.cache_enable ? local.memcached : null
}

output "security_group_id" {
  description = "Security group for further functions that use the shared cache. Null outside a VPC."
  value       = one(aws_security_group.function[*].id)
}

output "kms_key_arn" {
  description = "KMS key of the shared cache. Null where none is used."
  value       = local.use_kms ? local.kms_key_arn : null
}

output "make_cache_key" {
  description = "Command that makes a key for the shared cache; its output is cache_key_kms."
  value = local.use_kms ? join(" ", [
    "aws kms generate-data-key-without-plaintext --key-id ${local.kms_key_arn} --key-spec AES_256",
    "--encryption-context audience=${var.audience} --query CiphertextBlob --output text",
  ]) : null
}
