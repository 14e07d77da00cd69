# The layer for both architectures, and on request a demo function that reads a
# secret through it. The shared cache is in cache.tf, what fills it in warmup.tf.
# The zips are those of `make layer`, so a plan changes when they do.

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

locals {
  artifacts = coalesce(var.artifacts_dir, "${path.module}/../../dist")
  goarch    = { arm64 = "arm64", x86_64 = "amd64" }
  demo      = "${var.name}-demo"
  warmup    = "${var.name}-warmup"
  in_vpc    = var.vpc_id != null
  watched   = var.create_alarms || var.create_dashboard

  # The port of vault_addr, or its scheme's.
  vault_port = tonumber(try(regex("^https?://[^/]*:([0-9]+)(?:/|$)", var.vault_addr)[0], startswith(var.vault_addr, "https") ? "443" : "80"))

  functions = "arn:${data.aws_partition.this.partition}:lambda:${data.aws_region.this.id}:${data.aws_caller_identity.this.account_id}:function"

  # Of both functions. What is null is left out.
  common = {
    VLE_VAULT_ADDR            = var.vault_addr # VAULT_ADDR then is free for clients in the function
    VAULT_NAMESPACE           = var.vault_namespace
    VAULT_CACERT_BYTES        = var.vault_cacert
    VAULT_AUTH_PROVIDER       = var.vault_auth_provider
    VAULT_IAM_SERVER_ID       = var.vault_iam_server_id
    VAULT_STS_ENDPOINT_REGION = var.vault_sts_endpoint_region
    VAULT_ASSUMED_ROLE_ARN    = var.vault_assumed_role_arn
    VAULT_LOG_LEVEL           = var.log_level
    THAW_EMF                  = local.watched ? "true" : null # alarms and the dashboard are made of these
    THAW_MAX_AGE              = var.max_age
    THAW_STALE_IF_ERROR       = var.stale_if_error
  }
}

resource "aws_lambda_layer_version" "this" {
  for_each = var.layers

  layer_name               = "${var.name}-${local.goarch[each.key]}"
  description              = "thaw, a secrets cache for functions that freeze"
  filename                 = "${local.artifacts}/thaw-layer-${local.goarch[each.key]}.zip"
  source_code_hash         = filebase64sha256("${local.artifacts}/thaw-layer-${local.goarch[each.key]}.zip")
  compatible_architectures = [each.key]
  license_info             = "Apache-2.0"
  skip_destroy             = true # functions of others may have the old version
}

resource "aws_lambda_function" "demo" {
  count = var.create_demo ? 1 : 0

  function_name    = local.demo
  description      = "Reads secrets through thaw and says how that went"
  role             = aws_iam_role.demo[0].arn
  runtime          = "provided.al2023"
  handler          = "bootstrap"
  architectures    = [var.architecture]
  filename         = "${local.artifacts}/thaw-demo-${local.goarch[var.architecture]}.zip"
  source_code_hash = filebase64sha256("${local.artifacts}/thaw-demo-${local.goarch[var.architecture]}.zip")
  layers           = [aws_lambda_layer_version.this[var.architecture].arn]
  memory_size      = 256
  timeout          = 10
  kms_key_arn      = var.environment_kms_key_arn
  tags             = var.tags

  logging_config {
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.demo[0].name
  }

  environment {
    variables = { for k, v in merge(
      local.common,
      { SECRET_PATH = var.secret_path, VAULT_AUTH_ROLE = var.vault_auth_role },
      local.cache_on ? local.cache_env : { CACHE_ENABLE = "false" },
      var.environment,
    ) : k => v if v != null && v != "" }
  }

  dynamic "vpc_config" {
    for_each = local.in_vpc ? [1] : []
    content {
      subnet_ids         = var.subnet_ids
      security_group_ids = [aws_security_group.function[0].id]
    }
  }

  depends_on = [aws_iam_role_policy.demo, aws_iam_role_policy.demo_network]
}

resource "aws_cloudwatch_log_group" "demo" {
  count = var.create_demo ? 1 : 0

  name              = "/aws/lambda/${local.demo}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.logs_kms_key_arn
  tags              = var.tags
}

locals {
  by_lambda = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })

  assume_vault_role = var.vault_assumed_role_arn == null ? [] : [{
    Sid      = "AssumeVaultRole"
    Effect   = "Allow"
    Action   = ["sts:AssumeRole"]
    Resource = [var.vault_assumed_role_arn]
  }]

  read_variables = var.environment_kms_key_arn == null ? [] : [{
    Sid       = "ReadOwnVariables"
    Effect    = "Allow"
    Action    = ["kms:Decrypt"]
    Resource  = [var.environment_kms_key_arn]
    Condition = { ArnLike = { "kms:EncryptionContext:aws:lambda:FunctionArn" = "${local.functions}:${var.name}-*" } }
  }]

  # With a key in clear, and without a shared cache, there is nothing to decrypt.
  decrypt_keys = !local.use_kms ? [] : [{
    Sid       = "DecryptKeysOfTheAudience"
    Effect    = "Allow"
    Action    = ["kms:Decrypt"]
    Resource  = [local.kms_key_arn]
    Condition = { StringEquals = { "kms:EncryptionContext:audience" = var.audience } }
  }]
}

resource "aws_iam_role" "demo" {
  count = var.create_demo ? 1 : 0

  name                 = local.demo
  path                 = var.role_path
  permissions_boundary = var.permissions_boundary
  description          = "Execution role of the demo function; Vault's role has it as bound_iam_principal_arn"
  assume_role_policy   = local.by_lambda
  tags                 = var.tags
}

resource "aws_iam_role_policy" "demo" {
  count = var.create_demo ? 1 : 0

  name = "run"
  role = aws_iam_role.demo[0].name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([{
      Sid      = "WriteLogs"
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = ["${aws_cloudwatch_log_group.demo[0].arn}:*"]
    }], local.assume_vault_role, local.read_variables)
  })
}

# Apart from the rest, since the key's policy names the role.
resource "aws_iam_role_policy" "demo_cache" {
  count = var.create_demo && local.use_kms ? 1 : 0

  name   = "cache"
  role   = aws_iam_role.demo[0].name
  policy = jsonencode({ Version = "2012-10-17", Statement = local.decrypt_keys })
}
