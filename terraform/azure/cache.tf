# The shared cache, and the key in Key Vault that wraps its data key.

locals {
  use_key_vault  = var.cache_enable && nonsensitive(var.cache_key == null)
  make_vault     = local.use_key_vault && var.key_vault_id == null
  make_memcached = var.cache_enable && var.memcached.container_subnet_id != null
  memcached      = local.make_memcached ? "${azurerm_container_group.memcached[0].ip_address}:11211" : var.memcached.nodes
}

resource "azurerm_key_vault" "this" {
  count = local.make_vault ? 1 : 0

  name                       = "${var.name}-kv"
  resource_group_name        = var.resource_group_name
  location                   = var.location
  tenant_id                  = data.azurerm_client_config.this.tenant_id
  sku_name                   = "standard"
  rbac_authorization_enabled = true
  purge_protection_enabled   = true
  soft_delete_retention_days = 90
  tags                       = var.tags
}

# Whoever applies this makes the key, and may wrap with it. Nobody but the app
# is given the right to unwrap.
resource "azurerm_role_assignment" "officer" {
  count = local.make_vault ? 1 : 0

  scope                = azurerm_key_vault.this[0].id
  role_definition_name = "Key Vault Crypto Officer"
  principal_id         = data.azurerm_client_config.this.object_id
}

resource "azurerm_key_vault_key" "this" {
  count = local.use_key_vault ? 1 : 0

  name         = "${var.name}-cache"
  key_vault_id = local.make_vault ? azurerm_key_vault.this[0].id : var.key_vault_id
  key_type     = "RSA"
  key_size     = 3072
  key_opts     = ["encrypt", "wrapKey", "unwrapKey"]
  tags         = var.tags

  depends_on = [azurerm_role_assignment.officer]
}

# https://learn.microsoft.com/en-us/azure/role-based-access-control/built-in-roles/security#key-vault-crypto-service-encryption-user
resource "azurerm_role_assignment" "unwrap" {
  count = local.use_key_vault ? 1 : 0

  scope                = azurerm_key_vault_key.this[0].resource_versionless_id
  role_definition_name = "Key Vault Crypto Service Encryption User"
  principal_id         = azurerm_user_assigned_identity.this.principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_container_group" "memcached" {
  count = local.make_memcached ? 1 : 0

  name                = "${var.name}-memcached"
  resource_group_name = var.resource_group_name
  location            = var.location
  os_type             = "Linux"
  ip_address_type     = "Private"
  subnet_ids          = [var.memcached.container_subnet_id]
  restart_policy      = "Always"
  tags                = var.tags

  container {
    name     = "memcached"
    image    = var.memcached.image
    cpu      = 1
    memory   = ceil(var.memcached.memory_mb * 1.25 / 512) / 2
    commands = ["memcached", "-m", tostring(var.memcached.memory_mb), "-c", "4096", "-o", "modern"]

    ports {
      port     = 11211
      protocol = "TCP"
    }

    liveness_probe {
      exec = ["/bin/sh", "-c", "pidof memcached"]
    }
  }
}

resource "azurerm_role_assignment" "dump" {
  count = var.dump_scope_id != null ? 1 : 0

  scope                = var.dump_scope_id
  role_definition_name = "Storage Blob Data Contributor"
  principal_id         = azurerm_user_assigned_identity.this.principal_id
  principal_type       = "ServicePrincipal"
}
