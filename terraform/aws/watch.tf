# Alarms, and a dashboard, made of thaw's own metrics (THAW_EMF). Stale answers
# are looked for among all functions with the layer.

locals {
  # Metrics Insights: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/query_with_cloudwatch-metrics-insights.html
  sum = { for m in [
    "thaw_hits_total", "thaw_hits_shared_total", "thaw_stale_total", "thaw_misses_total", "thaw_origin_requests_total",
    "thaw_polls_total", "thaw_polls_failed_total", "thaw_errors_total",
  ] : m => "SELECT SUM(${m}) FROM SCHEMA(\"thaw\", \"function\")" }
}

resource "aws_cloudwatch_metric_alarm" "stale" {
  count = var.create_alarms ? 1 : 0

  alarm_name          = "${var.name}-stale-served"
  alarm_description   = "Functions are served secrets that could not be verified, since Vault does not answer. Look at Vault, and at the route to it."
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  evaluation_periods  = 2
  datapoints_to_alarm = 2
  treat_missing_data  = "notBreaching"
  tags                = var.tags

  metric_query {
    id          = "stale"
    expression  = local.sum["thaw_stale_total"]
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
          title = "Hit ratio by tier, percent of reads", region = data.aws_region.this.id, view = "timeSeries", stacked = true, period = 300
          yAxis = { left = { min = 0, max = 100 } }
          metrics = [
            [{ id = "hits", visible = false, expression = local.sum["thaw_hits_total"] }],
            [{ id = "shared", visible = false, expression = local.sum["thaw_hits_shared_total"] }],
            [{ id = "stale", visible = false, expression = local.sum["thaw_stale_total"] }],
            [{ id = "misses", visible = false, expression = local.sum["thaw_misses_total"] }],
            [{ id = "memory", label = "memory", expression = "100 * (hits - shared) / (hits + stale + misses)" }],
            [{ id = "tier", label = "shared cache", expression = "100 * shared / (hits + stale + misses)" }],
            [{ id = "old", label = "stale", expression = "100 * stale / (hits + stale + misses)" }],
          ]
        }
      },
      {
        type = "metric", x = 12, y = 0, width = 12, height = 6
        properties = {
          title = "Requests to Vault", region = data.aws_region.this.id, view = "timeSeries", period = 300
          metrics = [
            [{ id = "functions", label = "all functions", expression = local.sum["thaw_origin_requests_total"] }],
            [{ id = "polls", label = "polls", expression = local.sum["thaw_polls_total"] }],
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
