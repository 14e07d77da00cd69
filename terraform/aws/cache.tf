# The shared cache: memcached with TLS, and the key that encrypts its data key.

locals {
  make_memcached  = var.cache_enable && var.memcached.nodes == null
  make_cluster    = local.make_memcached && !var.memcached.serverless
  make_serverless = local.make_memcached && var.memcached.serverless
  plain_key       = nonsensitive(var.cache_key != null)
  use_kms         = var.cache_enable && !local.plain_key
  make_key        = local.use_kms && var.kms_key_arn == null
  kms_key_arn     = local.make_key ? one(aws_kms_key.this[*].arn) : var.kms_key_arn
  # Nothing goes there unsealed: without a key the functions do without.
  cache_on = var.cache_enable && (local.plain_key || var.cache_key_kms != null)

  memcached = (
    local.make_cluster ? "tls://${aws_elasticache_cluster.this[0].configuration_endpoint}" :
    local.make_serverless ? "tls://${aws_elasticache_serverless_cache.this[0].endpoint[0].address}:${aws_elasticache_serverless_cache.this[0].endpoint[0].port}" :
    var.memcached.nodes
  )

  cache_env = {
    CACHE_ENABLE                   = "true"
    CACHE_TTL                      = tostring(var.cache_ttl)
    THAW_MEMCACHED                 = local.memcached
    THAW_MEMCACHED_TIMEOUT         = var.memcached.timeout
    THAW_MEMCACHED_CACERT          = var.memcached.cacert
    THAW_MEMCACHED_TLS_SERVER_NAME = var.memcached.tls_server_name
    THAW_MEMCACHED_CLIENT_CERT     = var.memcached.client_cert
    THAW_MEMCACHED_CLIENT_KEY      = var.memcached.client_key
    THAW_CACHE_KEY                 = var.cache_key
    THAW_CACHE_KEY_KMS             = var.cache_key_kms
    THAW_AUDIENCE                  = var.audience
    THAW_CLOCK_SKEW                = var.clock_skew
    THAW_NO_SHARE_PATHS            = join(",", var.no_share_paths)
  }
}

resource "aws_elasticache_cluster" "this" {
  count = local.make_cluster ? 1 : 0

  cluster_id                 = var.name
  engine                     = "memcached"
  engine_version             = "1.6.22"
  node_type                  = var.memcached.node_type
  num_cache_nodes            = var.memcached.node_count
  az_mode                    = var.memcached.node_count > 1 ? "cross-az" : "single-az"
  port                       = 11211
  transit_encryption_enabled = true
  subnet_group_name          = aws_elasticache_subnet_group.this[0].name
  security_group_ids         = [aws_security_group.memcached[0].id]
  apply_immediately          = true
  tags                       = var.tags
}

# TLS only, one endpoint: thaw asks it for no list of nodes.
resource "aws_elasticache_serverless_cache" "this" {
  count = local.make_serverless ? 1 : 0

  name                 = var.name
  description          = "Shared cache of thaw"
  engine               = "memcached"
  major_engine_version = "1.6"
  subnet_ids           = var.subnet_ids
  security_group_ids   = [aws_security_group.memcached[0].id]
  tags                 = var.tags

  cache_usage_limits {
    data_storage {
      maximum = var.memcached.max_gigabytes
      unit    = "GB"
    }
    dynamic "ecpu_per_second" {
      for_each = var.memcached.max_ecpu == null ? [] : [var.memcached.max_ecpu]
      content {
        maximum = ecpu_per_second.value
      }
    }
  }
}

resource "aws_elasticache_subnet_group" "this" {
  count = local.make_cluster ? 1 : 0

  name        = var.name
  description = "Shared cache of thaw"
  subnet_ids  = var.subnet_ids
  tags        = var.tags
}

# Its policy, and not the account's policies, says who may decrypt: the roles of
# the audience, and that audience's keys alone. Administrators may manage the
# key and make data keys that nobody sees; they may not decrypt.
resource "aws_kms_key" "this" {
  count = local.make_key ? 1 : 0

  description             = "Shared cache of thaw, audience ${var.audience}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  tags                    = var.tags
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([
      {
        Sid       = "Administer"
        Effect    = "Allow"
        Principal = { AWS = local.account }
        Action = [
          "kms:CancelKeyDeletion", "kms:CreateAlias", "kms:DeleteAlias", "kms:DescribeKey", "kms:DisableKey", "kms:DisableKeyRotation",
          "kms:EnableKey", "kms:EnableKeyRotation", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListKeyPolicies",
          "kms:ListResourceTags", "kms:PutKeyPolicy", "kms:ScheduleKeyDeletion", "kms:TagResource", "kms:UntagResource",
          "kms:UpdateKeyDescription",
        ]
        Resource = "*"
      },
      ], [{
        Sid       = "MakeKeysOfTheAudience"
        Effect    = "Allow"
        Principal = { AWS = local.account }
        Action    = "kms:GenerateDataKeyWithoutPlaintext"
        Resource  = "*"
        Condition = { StringEquals = { "kms:EncryptionContext:audience" = var.audience } }
        }], [for roles in [local.members] : {
        Sid       = "DecryptKeysOfTheAudience"
        Effect    = "Allow"
        Principal = { AWS = roles }
        Action    = "kms:Decrypt"
        Resource  = "*"
        Condition = { StringEquals = { "kms:EncryptionContext:audience" = var.audience } }
    } if local.has_members])
  })
}

locals {
  account     = "arn:${data.aws_partition.this.partition}:iam::${data.aws_caller_identity.this.account_id}:root"
  members     = concat(aws_iam_role.demo[*].arn, aws_iam_role.warmup[*].arn, var.audience_role_arns)
  has_members = var.create_demo || local.warmup_wanted || length(var.audience_role_arns) > 0
}
