# terraform test -var=artifacts_dir=../../dist, after `make layer`. The provider
# is a mock: nothing is made.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_region" {
    defaults = { name = "eu-central-1" }
  }
}

variables {
  vault_addr = "https://vault.example.com:8200"
}

run "defaults_make_the_layer_alone" {
  command = plan

  assert {
    condition     = length(aws_lambda_layer_version.this) == 2 && length(aws_lambda_function.demo) + length(aws_iam_role.demo) == 0
    error_message = "The layer for two architectures, and no demo."
  }
  assert {
    condition     = length(aws_cloudwatch_metric_alarm.functions) == 4 && length(aws_cloudwatch_dashboard.this) == 1 && output.environment.THAW_EMF == "true"
    error_message = "Alarms, the dashboard, and the metrics that they look at."
  }
  assert {
    condition     = length(aws_lambda_function.warmup) + length(aws_elasticache_cluster.this) + length(aws_kms_key.this) + length(aws_security_group.function) == 0
    error_message = "Nothing of the shared cache, unless it is asked for."
  }
}

run "a_demo_on_request" {
  command = plan
  variables {
    create_demo             = true
    create_alarms           = false
    create_dashboard        = false
    role_path               = "/thaw/"
    permissions_boundary    = "arn:aws:iam::123456789012:policy/bound"
    logs_kms_key_arn        = "arn:aws:kms:eu-central-1:123456789012:key/1"
    environment_kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/2"
  }

  assert {
    condition     = aws_lambda_function.demo[0].environment[0].variables.CACHE_ENABLE == "false" && !contains(keys(aws_lambda_function.demo[0].environment[0].variables), "VAULT_NAMESPACE")
    error_message = "No shared cache, and no empty variables."
  }
  assert {
    condition     = !contains(keys(aws_lambda_function.demo[0].environment[0].variables), "THAW_EMF") && length(aws_cloudwatch_metric_alarm.functions) + length(aws_cloudwatch_dashboard.this) == 0
    error_message = "Metrics only where something looks at them."
  }
  assert {
    condition     = aws_iam_role.demo[0].path == "/thaw/" && aws_iam_role.demo[0].permissions_boundary == "arn:aws:iam::123456789012:policy/bound"
    error_message = "The role is where it should be, and bounded."
  }
  assert {
    condition     = aws_cloudwatch_log_group.demo[0].kms_key_id == "arn:aws:kms:eu-central-1:123456789012:key/1" && aws_lambda_function.demo[0].kms_key_arn == "arn:aws:kms:eu-central-1:123456789012:key/2"
    error_message = "Logs and variables are encrypted with the given keys."
  }
}

run "serverless_memcached" {
  command = plan
  variables {
    cache_enable = true
    vault_addr   = "https://vault.example.com"
    memcached    = { serverless = true, max_gigabytes = 2, max_ecpu = 5000 }
    vpc_id       = "vpc-0123456789abcdef0"
    subnet_ids   = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
  }

  assert {
    condition     = length(aws_elasticache_serverless_cache.this) == 1 && aws_elasticache_serverless_cache.this[0].engine == "memcached" && length(aws_elasticache_cluster.this) + length(aws_elasticache_subnet_group.this) == 0
    error_message = "ElastiCache Serverless in place of nodes."
  }
  assert {
    condition     = aws_vpc_security_group_egress_rule.vault["0.0.0.0/0"].from_port == 443
    error_message = "Vault's port is that of its address."
  }
}

run "without_a_key_the_cache_waits" {
  command = plan
  variables {
    create_demo  = true
    cache_enable = true
    warmup       = {}
    vpc_id       = "vpc-0123456789abcdef0"
    subnet_ids   = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
  }

  assert {
    condition     = length(aws_elasticache_cluster.this) == 1 && aws_elasticache_cluster.this[0].transit_encryption_enabled && length(aws_kms_key.this) == 1
    error_message = "memcached with TLS and a key are made."
  }
  assert {
    condition     = aws_lambda_function.demo[0].environment[0].variables.CACHE_ENABLE == "false" && aws_cloudwatch_event_rule.warmup[0].state == "DISABLED"
    error_message = "Neither is used before there is a data key."
  }
}

run "everything_is_given" {
  command = plan
  variables {
    cache_enable  = true
    memcached     = { nodes = "tls://cache.example.com:11212" }
    kms_key_arn   = "arn:aws:kms:eu-central-1:123456789012:key/0-1-2"
    cache_key_kms = "AQIDAHg="
    architecture  = "x86_64"
    warmup        = { run_for = 50 }
    environment   = { THAW_MEMCACHED_TIMEOUT = "50ms" }
  }

  assert {
    condition     = length(aws_elasticache_cluster.this) + length(aws_kms_key.this) + length(aws_lambda_function.demo) == 0
    error_message = "Nothing is made that was given."
  }
  assert {
    condition     = aws_lambda_function.warmup[0].environment[0].variables.THAW_MEMCACHED_TIMEOUT == "50ms" && aws_lambda_function.warmup[0].reserved_concurrent_executions == 1
    error_message = "The environment wins, and one instance is reserved."
  }
  assert {
    condition     = aws_lambda_function.warmup[0].environment[0].variables.THAW_WARM_FOR == "50"
    error_message = "A run goes on for as long as it is told."
  }
  assert {
    condition     = aws_lambda_function.warmup[0].architectures[0] == "x86_64" && aws_cloudwatch_event_rule.warmup[0].state == "ENABLED"
    error_message = "The warm-up runs, on the architecture asked for."
  }
}

run "a_key_in_clear_needs_no_kms" {
  command = plan
  variables {
    create_demo      = true
    cache_enable     = true
    memcached        = { nodes = "cache.example.com" }
    cache_key        = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    warmup           = {}
    warmup_audiences = [{ audience = "a", paths = ["kv/"] }]
  }

  assert {
    condition     = length(aws_kms_key.this) == 0 && length(aws_iam_role_policy.demo_cache) == 0
    error_message = "No KMS key, and no right to one."
  }
}

run "bad_values_are_refused" {
  command = plan
  variables {
    vault_addr           = "vault.example.com"
    architecture         = "arm"
    memcached            = { node_count = 0 }
    kms_key_arn          = "alias/thaw"
    audience             = "two words"
    cache_ttl            = 0
    warmup               = { dump = "s3://bucket", schedule = "1 minute", run_for = 291, workers = 65, dump_interval = 5 }
    subnet_ids           = ["subnet-0123456789abcdef0"]
    cache_key            = "a"
    cache_key_kms        = "b"
    log_retention_days   = 8
    role_path            = "thaw"
    permissions_boundary = "bound"
  }

  expect_failures = [
    var.vault_addr, var.architecture, var.memcached, var.kms_key_arn, var.audience, var.cache_ttl, var.warmup,
    var.subnet_ids, var.cache_key, var.log_retention_days, var.role_path, var.permissions_boundary,
  ]
}

run "elasticache_needs_a_vpc_and_paths_have_no_wildcards" {
  command = plan
  variables {
    cache_enable = true
    warmup       = { paths = ["secret/*"] }
  }
  expect_failures = [var.memcached, var.warmup]
}

run "one_memcached" {
  command = plan
  variables {
    cache_enable = true
    memcached    = { nodes = "cache.example.com", serverless = true }
  }
  expect_failures = [var.memcached]
}
