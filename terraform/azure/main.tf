# A function app whose custom handler is thaw-azure, and what it needs: an
# identity, the storage of the Functions host without keys, a plan.

data "azurerm_client_config" "this" {}

locals {
  storage_name = var.storage_account_name != null ? var.storage_account_name : azurerm_storage_account.this[0].name
  storage_id   = var.storage_account_name != null ? data.azurerm_storage_account.given[0].id : azurerm_storage_account.this[0].id
  blobs        = var.storage_account_name != null ? data.azurerm_storage_account.given[0].primary_blob_endpoint : azurerm_storage_account.this[0].primary_blob_endpoint

  app_settings = merge(
    module.settings.app_settings,
    {
      # The host's own storage, by identity:
      # https://learn.microsoft.com/en-us/azure/azure-functions/functions-reference#connecting-to-host-storage-with-an-identity
      AzureWebJobsStorage__accountName = local.storage_name
      AzureWebJobsStorage__credential  = "managedidentity"
      AzureWebJobsStorage__clientId    = azurerm_user_assigned_identity.this.client_id
    },
    var.log_analytics_workspace_id == null ? {} : { APPLICATIONINSIGHTS_CONNECTION_STRING = azurerm_application_insights.this[0].connection_string },
    var.environment,
  )
}

module "settings" {
  source = "./modules/settings"

  settings = {
    vault_addr                            = var.vault_addr
    vault_namespace                       = var.vault_namespace
    vault_cacert                          = var.vault_cacert
    auth_method                           = var.auth_method
    vault_auth_provider                   = var.vault_auth_provider
    vault_auth_role                       = var.vault_auth_role
    azure_resource                        = var.azure_resource
    client_id                             = azurerm_user_assigned_identity.this.client_id
    plan                                  = var.plan
    log_level                             = var.log_level
    max_age                               = var.max_age
    stale_if_error                        = var.stale_if_error
    cache_enable                          = var.cache_enable
    cache_ttl                             = var.cache_ttl
    memcached                             = local.memcached
    memcached_timeout                     = var.memcached.timeout
    memcached_cacert                      = var.memcached.cacert
    memcached_tls_server_name             = var.memcached.tls_server_name
    memcached_client_cert                 = var.memcached.client_cert
    memcached_client_key                  = var.memcached.client_key
    cache_key                             = var.cache_key
    cache_key_keyvault                    = var.cache_key_keyvault
    audience                              = var.audience
    clock_skew                            = var.clock_skew
    no_share_paths                        = var.no_share_paths
    proactive_cache_enable                = var.warmup != null
    new_proactive_cache_enable            = try(var.warmup.recommended, true)
    proactive_cache_workers               = try(var.warmup.workers, null)
    proactive_cache_minimum_fetching_time = try(var.warmup.minimum_fetching_time, null)
    proactive_cache_dump_interval         = try(var.warmup.dump_interval, null)
    dump                                  = try(var.warmup.dump, null)
    warm_paths                            = try(var.warmup.paths, [])
    warm_audiences                        = var.warmup_audiences
    warm_for                              = try(var.warmup.run_for, 0)
    warm_confirmed_only                   = try(var.warmup.confirmed_only, false)
    warm_function                         = try(var.warmup.function, null)
  }
}

resource "azurerm_user_assigned_identity" "this" {
  name                = var.name
  resource_group_name = var.resource_group_name
  location            = var.location
  tags                = var.tags
}

data "azurerm_storage_account" "given" {
  count = var.storage_account_name != null ? 1 : 0

  name                = var.storage_account_name
  resource_group_name = var.resource_group_name
}

resource "azurerm_storage_account" "this" {
  count = var.storage_account_name == null ? 1 : 0

  name                            = "${replace(var.name, "-", "")}host"
  resource_group_name             = var.resource_group_name
  location                        = var.location
  account_tier                    = "Standard"
  account_replication_type        = "LRS"
  min_tls_version                 = "TLS1_2"
  shared_access_key_enabled       = false
  allow_nested_items_to_be_public = false
  tags                            = var.tags
}

resource "azurerm_storage_container" "package" {
  count = var.plan == "flex" ? 1 : 0

  name                  = "${var.name}-package"
  storage_account_id    = local.storage_id
  container_access_type = "private"
}

# The host keeps its leases and timers there:
# https://learn.microsoft.com/en-us/azure/azure-functions/functions-reference#grant-permission-to-the-identity
resource "azurerm_role_assignment" "storage" {
  scope                = local.storage_id
  role_definition_name = "Storage Blob Data Owner"
  principal_id         = azurerm_user_assigned_identity.this.principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_service_plan" "this" {
  name                = var.name
  resource_group_name = var.resource_group_name
  location            = var.location
  os_type             = "Linux"
  sku_name            = var.plan == "flex" ? "FC1" : var.premium_sku
  tags                = var.tags
}

resource "azurerm_function_app_flex_consumption" "this" {
  count = var.plan == "flex" ? 1 : 0

  name                              = var.name
  resource_group_name               = var.resource_group_name
  location                          = var.location
  service_plan_id                   = azurerm_service_plan.this.id
  runtime_name                      = "custom"
  runtime_version                   = "1.0"
  storage_container_type            = "blobContainer"
  storage_container_endpoint        = "${local.blobs}${azurerm_storage_container.package[0].name}"
  storage_authentication_type       = "UserAssignedIdentity"
  storage_user_assigned_identity_id = azurerm_user_assigned_identity.this.id
  instance_memory_in_mb             = var.instance_memory_mb
  maximum_instance_count            = var.maximum_instances
  virtual_network_subnet_id         = var.subnet_id
  zip_deploy_file                   = var.package
  https_only                        = true
  app_settings                      = local.app_settings
  tags                              = var.tags

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.this.id]
  }

  site_config {
    minimum_tls_version = "1.2"
  }

  depends_on = [azurerm_role_assignment.storage, azurerm_role_assignment.unwrap]
}

resource "azurerm_linux_function_app" "this" {
  count = var.plan == "premium" ? 1 : 0

  name                            = var.name
  resource_group_name             = var.resource_group_name
  location                        = var.location
  service_plan_id                 = azurerm_service_plan.this.id
  storage_account_name            = local.storage_name
  storage_uses_managed_identity   = true
  virtual_network_subnet_id       = var.subnet_id
  zip_deploy_file                 = var.package
  https_only                      = true
  key_vault_reference_identity_id = azurerm_user_assigned_identity.this.id
  app_settings                    = merge(local.app_settings, { FUNCTIONS_WORKER_RUNTIME = "custom" })
  tags                            = var.tags

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.this.id]
  }

  site_config {
    minimum_tls_version    = "1.2"
    vnet_route_all_enabled = var.subnet_id != null

    application_stack {
      use_custom_runtime = true
    }
  }

  depends_on = [azurerm_role_assignment.storage, azurerm_role_assignment.unwrap]
}

resource "azurerm_application_insights" "this" {
  count = var.log_analytics_workspace_id != null ? 1 : 0

  name                = var.name
  resource_group_name = var.resource_group_name
  location            = var.location
  workspace_id        = var.log_analytics_workspace_id
  application_type    = "web"
  tags                = var.tags
}
