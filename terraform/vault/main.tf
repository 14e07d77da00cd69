# Vault's half: a policy and a role for each function, batch tokens, and the
# quotas. The mounts of the secrets are yours.

locals {
  roles = merge(
    { for name, f in var.functions : name => merge(f, { policy = "${var.name}-${name}" }) },
    { for w in [var.warmup] : w.role => merge(w, { list = true, policy = "${var.name}-warmup-role", events = false }) if w != null },
  )
  aws   = { for name, r in local.roles : name => r if length(r.aws_principal_arns) > 0 }
  azure = { for name, r in local.roles : name => r if length(r.azure_service_principals) + length(r.azure_subscription_ids) > 0 }
  jwt   = { for name, r in local.roles : name => r if r.jwt_subject != null || length(r.jwt_bound_claims) > 0 }
}

module "policy" {
  source   = "./modules/policies"
  for_each = local.roles

  secrets = each.value.secrets
  list    = each.value.list
  events  = each.value.events
  openbao = var.openbao
}

resource "vault_policy" "this" {
  for_each = local.roles

  namespace = var.namespace
  name      = each.value.policy
  policy    = module.policy[each.key].policy
}

# AWS

resource "vault_auth_backend" "aws" {
  count = var.aws_path != null && var.create_aws ? 1 : 0

  namespace   = var.namespace
  type        = "aws"
  path        = var.aws_path
  description = "Functions with thaw"
}

resource "vault_aws_auth_backend_client" "this" {
  count = var.aws_path != null && var.create_aws ? 1 : 0

  namespace                  = var.namespace
  backend                    = vault_auth_backend.aws[0].path
  iam_server_id_header_value = var.aws_iam_server_id
  sts_region                 = var.aws_sts_region
  sts_endpoint               = var.aws_sts_region == null ? null : "https://sts.${var.aws_sts_region}.amazonaws.com"
}

resource "vault_aws_auth_backend_role" "this" {
  for_each = local.aws

  namespace                = var.namespace
  backend                  = try(vault_auth_backend.aws[0].path, var.aws_path)
  role                     = each.key
  auth_type                = "iam"
  bound_iam_principal_arns = each.value.aws_principal_arns
  resolve_aws_unique_ids   = var.aws_resolve_unique_ids
  token_type               = var.token_type
  token_ttl                = var.token_ttl
  token_max_ttl            = var.token_ttl
  token_no_default_policy  = var.token_no_default_policy
  token_policies           = [vault_policy.this[each.key].name]

  lifecycle {
    precondition {
      condition     = var.aws_path != null
      error_message = "The role ${each.key} has aws_principal_arns: set aws_path."
    }
  }
}

# Azure

resource "vault_auth_backend" "azure" {
  count = var.azure_path != null ? 1 : 0

  namespace   = var.namespace
  type        = "azure"
  path        = var.azure_path
  description = "Functions with thaw"
}

resource "vault_azure_auth_backend_config" "this" {
  count = var.azure_path != null ? 1 : 0

  namespace = var.namespace
  backend   = vault_auth_backend.azure[0].path
  tenant_id = var.azure_tenant_id
  resource  = var.azure_resource
}

# bound_locations is left out on purpose: no function app can pass it.
resource "vault_azure_auth_backend_role" "this" {
  for_each = local.azure

  namespace                   = var.namespace
  backend                     = try(vault_auth_backend.azure[0].path, var.azure_path)
  role                        = each.key
  bound_service_principal_ids = each.value.azure_service_principals
  bound_subscription_ids      = each.value.azure_subscription_ids
  bound_resource_groups       = each.value.azure_resource_groups
  token_type                  = var.token_type
  token_ttl                   = var.token_ttl
  token_max_ttl               = var.token_ttl
  token_no_default_policy     = var.token_no_default_policy
  token_policies              = [vault_policy.this[each.key].name]

  lifecycle {
    precondition {
      condition     = var.azure_path != null
      error_message = "The role ${each.key} has azure_service_principals or azure_subscription_ids: set azure_path."
    }
  }
}

# JWT, for OpenBao

resource "vault_jwt_auth_backend" "this" {
  count = var.jwt_path != null ? 1 : 0

  namespace          = var.namespace
  type               = "jwt"
  path               = var.jwt_path
  description        = "Functions with thaw"
  oidc_discovery_url = var.jwt_oidc_discovery_url
}

resource "vault_jwt_auth_backend_role" "this" {
  for_each = local.jwt

  namespace               = var.namespace
  backend                 = try(vault_jwt_auth_backend.this[0].path, var.jwt_path)
  role_name               = each.key
  role_type               = "jwt"
  user_claim              = "sub"
  bound_audiences         = var.jwt_audiences
  bound_subject           = each.value.jwt_subject
  bound_claims            = each.value.jwt_bound_claims
  token_type              = var.token_type
  token_ttl               = var.token_ttl
  token_max_ttl           = var.token_ttl
  token_no_default_policy = var.token_no_default_policy
  token_policies          = [vault_policy.this[each.key].name]

  lifecycle {
    precondition {
      condition     = var.jwt_path != null
      error_message = "The role ${each.key} has jwt_subject or jwt_bound_claims: set jwt_path."
    }
  }
}

# Quotas

resource "vault_quota_rate_limit" "this" {
  for_each = var.rate_limits

  namespace = var.namespace
  name      = "${var.name}-${replace(trim(each.key, "/"), "/", "-")}"
  path      = each.key
  rate      = each.value
}

resource "vault_generic_endpoint" "quotas" {
  count = var.exempt_from_rate_limits ? 1 : 0

  path                 = "sys/quotas/config"
  disable_delete       = true
  ignore_absent_fields = true
  data_json = jsonencode({
    rate_limit_exempt_paths = concat([
      # Vault's own: https://developer.hashicorp.com/vault/api-docs/system/quotas-config
      "sys/generate-recovery-token/attempt", "sys/generate-recovery-token/update", "sys/generate-root/attempt", "sys/generate-root/update",
      "sys/health", "sys/seal-status", "sys/unseal",
      "sys/leader",
    ], var.exempt_paths)
  })
}
