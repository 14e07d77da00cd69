# The warm-up: it fills the shared cache on a schedule. It reads with a broad
# Vault role and has the audience's key, so nothing else may invoke it.

locals {
  warmup_wanted = var.cache_enable && var.warmup != null
  # Without a key the function is there, and its schedule waits.
  warmup_on = local.warmup_wanted && (local.cache_on || local.audiences_given)

  audiences_given = nonsensitive(var.warmup_audiences != null)

  warmup_env = !local.warmup_wanted ? {} : {
    CACHE_ENABLE                          = tostring(local.warmup_on)
    VAULT_AUTH_ROLE                       = var.warmup.vault_auth_role
    PROACTIVE_CACHE_ENABLE                = tostring(local.warmup_on)
    NEW_PROACTIVE_CACHE_ENABLE            = tostring(var.warmup.recommended)
    PROACTIVE_CACHE_WORKERS               = var.warmup.recommended ? tostring(var.warmup.workers) : null
    PROACTIVE_CACHE_MINIMUM_FETCHING_TIME = tostring(var.warmup.minimum_fetching_time)
    PROACTIVE_CACHE_DUMP_INTERVAL         = var.warmup.recommended || var.warmup.dump_interval == null ? null : tostring(var.warmup.dump_interval)
    THAW_DUMP                             = var.warmup.dump
    THAW_WARM_PATHS                       = local.audiences_given ? null : join(",", var.warmup.paths)
    THAW_WARM_AUDIENCES                   = var.warmup_audiences == null ? null : jsonencode([for a in var.warmup_audiences : { for k, v in a : k => v if v != "" }])
    THAW_WARM_FOR                         = tostring(var.warmup.run_for)
    THAW_WARM_CONFIRMED_ONLY              = tostring(var.warmup.confirmed_only)
  }
}

resource "aws_lambda_function" "warmup" {
  count = local.warmup_wanted ? 1 : 0

  function_name                  = local.warmup
  description                    = "Fills thaw's shared cache ahead of reads"
  role                           = aws_iam_role.warmup[0].arn
  runtime                        = "provided.al2023"
  handler                        = "bootstrap"
  architectures                  = [var.architecture]
  filename                       = "${local.artifacts}/thaw-warmup-${local.goarch[var.architecture]}.zip"
  source_code_hash               = filebase64sha256("${local.artifacts}/thaw-warmup-${local.goarch[var.architecture]}.zip")
  memory_size                    = 512
  timeout                        = 300
  reserved_concurrent_executions = var.warmup.reserve_concurrency ? 1 : -1
  kms_key_arn                    = var.environment_kms_key_arn
  tags                           = var.tags

  logging_config {
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.warmup[0].name
  }

  environment {
    variables = { for k, v in merge(local.common, local.cache_env, local.warmup_env, var.environment) : k => v if v != null && v != "" }
  }

  dynamic "vpc_config" {
    for_each = local.in_vpc ? [1] : []
    content {
      subnet_ids         = var.subnet_ids
      security_group_ids = [aws_security_group.function[0].id]
    }
  }

  depends_on = [aws_iam_role_policy.warmup, aws_iam_role_policy.warmup_network]
}

# A run that is late is of no use: the next one does its work.
resource "aws_lambda_function_event_invoke_config" "warmup" {
  count = local.warmup_wanted ? 1 : 0

  function_name                = aws_lambda_function.warmup[0].function_name
  maximum_event_age_in_seconds = 60
  maximum_retry_attempts       = 0
}

resource "aws_cloudwatch_event_rule" "warmup" {
  count = local.warmup_wanted ? 1 : 0

  name                = local.warmup
  description         = "Runs thaw's warm-up"
  schedule_expression = var.warmup.schedule
  state               = local.warmup_on ? "ENABLED" : "DISABLED"
  tags                = var.tags
}

resource "aws_cloudwatch_event_target" "warmup" {
  count = local.warmup_wanted ? 1 : 0

  rule      = aws_cloudwatch_event_rule.warmup[0].name
  target_id = "warmup"
  arn       = aws_lambda_function.warmup[0].arn
  input     = "{}"
}

resource "aws_lambda_permission" "warmup" {
  count = local.warmup_wanted ? 1 : 0

  statement_id  = "schedule"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.warmup[0].function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.warmup[0].arn
}

resource "aws_cloudwatch_log_group" "warmup" {
  count = local.warmup_wanted ? 1 : 0

  name              = "/aws/lambda/${local.warmup}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.logs_kms_key_arn
  tags              = var.tags
}

resource "aws_iam_role" "warmup" {
  count = local.warmup_wanted ? 1 : 0

  name                 = local.warmup
  path                 = var.role_path
  permissions_boundary = var.permissions_boundary
  description          = "Execution role of the warm-up; Vault's role has it as bound_iam_principal_arn"
  assume_role_policy   = local.by_lambda
  tags                 = var.tags
}

locals {
  dump = try(regex("^s3://(?P<bucket>[^/]+)/(?P<key>.+)$", var.warmup.dump), null)

  keep_backups = local.dump == null ? [] : [
    {
      Sid    = "KeepBackups"
      Effect = "Allow"
      Action = ["s3:GetObject", "s3:PutObject"]
      # The object that dump names, and those of further audiences beside it.
      Resource = ["arn:${data.aws_partition.this.partition}:s3:::${local.dump.bucket}/${local.dump.key}*"]
    },
  ]
  find_backups = local.dump == null ? [] : [
    {
      Sid       = "TellMissingFromForbidden"
      Effect    = "Allow"
      Action    = ["s3:ListBucket"]
      Resource  = ["arn:${data.aws_partition.this.partition}:s3:::${local.dump.bucket}"]
      Condition = { StringLike = { "s3:prefix" = "${local.dump.key}*" } }
    },
  ]
}

resource "aws_iam_role_policy" "warmup" {
  count = local.warmup_wanted ? 1 : 0

  name = "run"
  role = aws_iam_role.warmup[0].name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([{
      Sid      = "WriteLogs"
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = ["${aws_cloudwatch_log_group.warmup[0].arn}:*"]
    }], local.assume_vault_role, local.read_variables, local.keep_backups, local.find_backups)
  })
}

resource "aws_iam_role_policy" "warmup_cache" {
  count = local.warmup_wanted && local.use_kms ? 1 : 0

  name   = "cache"
  role   = aws_iam_role.warmup[0].name
  policy = jsonencode({ Version = "2012-10-17", Statement = local.decrypt_keys })
}
