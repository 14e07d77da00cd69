output "principal_id" {
  description = "The identity: bound_service_principal_ids of the Vault role, or bound_subject of a jwt role."
  value       = azurerm_user_assigned_identity.this.principal_id
}

output "client_id" {
  description = "THAW_AZURE_CLIENT_ID for further apps with this identity."
  value       = azurerm_user_assigned_identity.this.client_id
}

output "function_app_name" {
  description = "Where to publish functions/azure, unless package did."
  value       = var.name
}

output "default_hostname" {
  description = "The app's address."
  value       = var.plan == "flex" ? one(azurerm_function_app_flex_consumption.this[*].default_hostname) : one(azurerm_linux_function_app.this[*].default_hostname)
}

output "memcached" {
  description = "THAW_MEMCACHED for further apps."
  value       = var.cache_enable ? local.memcached : null
}

output "key_id" {
  description = "Key that wraps the data key of the shared cache."
  value       = one(azurerm_key_vault_key.this[*].id)
}

output "make_cache_key" {
  description = "Command that makes a key for the shared cache; its output is cache_key_keyvault."
  value = !local.use_key_vault ? null : join(" ", [
    "echo \"${azurerm_key_vault_key.this[0].id}#$(az keyvault key encrypt --id ${azurerm_key_vault_key.this[0].id}",
    "--algorithm RSA-OAEP-256 --data-type base64 --value \"$(openssl rand -base64 32)\" --query result --output tsv)\"",
  ])
}
