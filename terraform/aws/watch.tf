# Alarms, and a dashboard, made of thaw's own metrics (THAW_EMF): the ten that
# THAW_EMF=true writes.

locals {
  # Metrics Insights: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/query_with_cloudwatch-metrics-insights.html
  sum = { for m in [
    "thaw_hits_total", "thaw_stale_total", "thaw_misses_total", "thaw_errors_total", "thaw_origin_requests_total", "thaw_origin_refused_total",
    "thaw_origin_foreign_total", "thaw_polls_failed_total",
  ] : m => "SELECT SUM(${m}) FROM SCHEMA(\"thaw\", \"function\")" }
  most = { for m in ["thaw_slowest_wait_seconds", "thaw_stamp_age_seconds"] : m => "SELECT MAX(${m}) FROM SCHEMA(\"thaw\", \"function\")" }

  alarms = {
    "stale-served"    = { metric = "thaw_stale_total", what = "A function is served secrets that could not be verified, since Vault does not answer. Look at Vault, and at the route to it." }
    "polls-failed"    = { metric = "thaw_polls_failed_total", what = "A function gets no answer when it verifies its secrets. Look at Vault, the route to it and its rate limit quotas." }
    "refused"         = { metric = "thaw_origin_refused_total", what = "A function is refused by Vault. Its log has the path, whose token it was and what to check." }
    "foreign-answers" = { metric = "thaw_origin_foreign_total", what = "A function gets answers that are not Vault's. Look at the gateway or load balancer before Vault; the log has status and content type." }
  }
}

# Of each function with the layer: an alarm that fires names it. A query with
# GROUP BY is an alarm for each of its series.
resource "aws_cloudwatch_metric_alarm" "functions" {
  for_each = var.create_alarms ? local.alarms : {}

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.what
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  evaluation_periods  = 2
  datapoints_to_alarm = 2
  treat_missing_data  = "notBreaching"
  tags                = var.tags

  metric_query {
    id          = "sum"
    expression  = "${local.sum[each.value.metric]} GROUP BY \"function\""
    period      = 300
    return_data = true
  }
}

resource "aws_cloudwatch_metric_alarm" "warmup_failing" {
  count = var.create_alarms && local.warmup_wanted ? 1 : 0

  alarm_name          = "${local.warmup}-failing"
  alarm_description   = "The warm-up's invocations fail. Its log has the reason."
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  namespace           = "AWS/Lambda"
  metric_name         = "Errors"
  dimensions          = { FunctionName = local.warmup }
  statistic           = "Sum"
  period              = 300
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  evaluation_periods  = 3
  datapoints_to_alarm = 2
  treat_missing_data  = "notBreaching"
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "warmup_late" {
  count = var.create_alarms && local.warmup_on ? 1 : 0

  alarm_name          = "${local.warmup}-late"
  alarm_description   = "No full warm-up has been completed for twice CACHE_TTL, or none ran at all. Its log says what is in its way."
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  namespace           = "thaw"
  metric_name         = "thaw_warm_last_full_age_seconds"
  dimensions          = { function = local.warmup }
  statistic           = "Minimum"
  period              = 900
  comparison_operator = "GreaterThanThreshold"
  threshold           = 2 * 60 * var.cache_ttl
  evaluation_periods  = 3
  datapoints_to_alarm = 3
  treat_missing_data  = "breaching"
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "gate_exhausted" {
  count = var.create_alarms && local.warmup_on ? 1 : 0

  alarm_name          = "${local.warmup}-gate-exhausted"
  alarm_description   = "Vault's rate limit made the warm-up give a cycle up. Fewer workers, a longer interval, narrower paths or a larger quota help."
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  namespace           = "thaw"
  metric_name         = "thaw_warm_gate_exhausted"
  dimensions          = { function = local.warmup }
  statistic           = "Sum"
  period              = 900
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  tags                = var.tags
}

resource "aws_cloudwatch_dashboard" "this" {
  count = var.create_dashboard ? 1 : 0

  dashboard_name = var.name
  dashboard_body = jsonencode({
    periodOverride = "inherit"
    widgets = [
      {
        type = "metric", x = 0, y = 0, width = 12, height = 6
        properties = {
          title = "Reads", region = data.aws_region.this.id, view = "timeSeries", stacked = true, period = 300
          metrics = [
            [{ id = "hits", label = "from memory", expression = local.sum["thaw_hits_total"] }],
            [{ id = "misses", label = "from Vault", expression = local.sum["thaw_misses_total"] }],
            [{ id = "stale", label = "stale", expression = local.sum["thaw_stale_total"] }],
          ]
        }
      },
      {
        type = "metric", x = 12, y = 0, width = 12, height = 6
        properties = {
          title = "Requests to Vault", region = data.aws_region.this.id, view = "timeSeries", period = 300
          metrics = [
            [{ id = "functions", label = "all functions", expression = local.sum["thaw_origin_requests_total"] }],
            [{ id = "refused", label = "refused", expression = local.sum["thaw_origin_refused_total"] }],
            [{ id = "foreign", label = "answers that are not Vault's", expression = local.sum["thaw_origin_foreign_total"] }],
            ["thaw", "thaw_warm_requests", "function", local.warmup, { stat = "Sum", label = "warm-up" }],
          ]
        }
      },
      {
        type = "metric", x = 0, y = 6, width = 12, height = 6
        properties = {
          title = "Staleness", region = data.aws_region.this.id, view = "timeSeries", period = 300
          metrics = [
            [{ id = "stale", label = "answers that could not be verified", expression = local.sum["thaw_stale_total"] }],
            [{ id = "failed", label = "polls that Vault failed", expression = local.sum["thaw_polls_failed_total"] }],
            [{ id = "errors", label = "reads that failed", expression = local.sum["thaw_errors_total"] }],
            [{ id = "slowest", label = "slowest wait, in seconds", expression = local.most["thaw_slowest_wait_seconds"], yAxis = "right" }],
            [{ id = "age", label = "oldest verification of another instance, in seconds", expression = local.most["thaw_stamp_age_seconds"], yAxis = "right" }],
            ["thaw", "thaw_warm_last_full_age_seconds", "function", local.warmup, { stat = "Maximum", label = "seconds since the last full warm-up", yAxis = "right" }],
          ]
        }
      },
      {
        type = "metric", x = 12, y = 6, width = 12, height = 6
        properties = {
          title = "Warm-up", region = data.aws_region.this.id, view = "timeSeries", period = 300, stat = "Sum"
          metrics = [
            ["thaw", "thaw_warm_fetched", "function", local.warmup, { label = "read" }],
            ["thaw", "thaw_warm_changed", "function", local.warmup, { label = "changed" }],
            ["thaw", "thaw_warm_unchanged", "function", local.warmup, { label = "unchanged" }],
            ["thaw", "thaw_warm_removed", "function", local.warmup, { label = "removed" }],
            ["thaw", "thaw_warm_failed", "function", local.warmup, { label = "failed" }],
            ["thaw", "thaw_warm_rate_limited", "function", local.warmup, { label = "refused by the rate limit" }],
            ["thaw", "thaw_warm_gate_exhausted", "function", local.warmup, { label = "cycles given up" }],
            ["thaw", "thaw_warm_complete", "function", local.warmup, { stat = "Average", label = "runs that were complete", yAxis = "right" }],
          ]
        }
      },
    ]
  })
}
