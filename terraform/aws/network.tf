# What functions in a VPC need.

resource "aws_security_group" "function" {
  count = local.in_vpc ? 1 : 0

  name        = "${var.name}-function"
  description = "Functions with thaw"
  vpc_id      = var.vpc_id
  tags        = merge(var.tags, { Name = "${var.name}-function" })
}

resource "aws_vpc_security_group_egress_rule" "vault" {
  for_each = toset([for cidr in var.vault_cidrs : cidr if local.in_vpc])

  security_group_id = aws_security_group.function[0].id
  description       = "Vault"
  ip_protocol       = "tcp"
  from_port         = local.vault_port
  to_port           = local.vault_port
  cidr_ipv4         = each.key
  tags              = var.tags
}

resource "aws_vpc_security_group_egress_rule" "https" {
  count = local.in_vpc ? 1 : 0

  security_group_id = aws_security_group.function[0].id
  description       = "KMS, STS, S3"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
  tags              = var.tags
}

resource "aws_vpc_security_group_egress_rule" "memcached" {
  count = local.in_vpc && local.make_memcached ? 1 : 0

  security_group_id            = aws_security_group.function[0].id
  description                  = "Shared cache"
  ip_protocol                  = "tcp"
  from_port                    = 11211
  to_port                      = 11211
  referenced_security_group_id = aws_security_group.memcached[0].id
  tags                         = var.tags
}

# A memcached of one's own may be anywhere, at any port.
resource "aws_vpc_security_group_egress_rule" "given_memcached" {
  for_each = toset([
    for node in split(",", coalesce(var.memcached.nodes, ",")) : try(regex(":([0-9]+)$", node)[0], "11211")
    if local.in_vpc && var.cache_enable && node != ""
  ])

  security_group_id = aws_security_group.function[0].id
  description       = "Shared cache"
  ip_protocol       = "tcp"
  from_port         = tonumber(each.key)
  to_port           = tonumber(each.key)
  cidr_ipv4         = "0.0.0.0/0"
  tags              = var.tags
}

resource "aws_security_group" "memcached" {
  count = local.make_memcached ? 1 : 0

  name        = "${var.name}-memcached"
  description = "Shared cache of thaw"
  vpc_id      = var.vpc_id
  tags        = merge(var.tags, { Name = "${var.name}-memcached" })
}

resource "aws_vpc_security_group_ingress_rule" "memcached" {
  count = local.make_memcached ? 1 : 0

  security_group_id            = aws_security_group.memcached[0].id
  description                  = "Functions with thaw"
  ip_protocol                  = "tcp"
  from_port                    = 11211
  to_port                      = 11211
  referenced_security_group_id = aws_security_group.function[0].id
  tags                         = var.tags
}

resource "aws_security_group" "kms" {
  count = var.create_kms_endpoint && local.use_kms ? 1 : 0

  name        = "${var.name}-kms"
  description = "KMS for functions with thaw"
  vpc_id      = var.vpc_id
  tags        = merge(var.tags, { Name = "${var.name}-kms" })
}

resource "aws_vpc_security_group_ingress_rule" "kms" {
  count = var.create_kms_endpoint && local.use_kms ? 1 : 0

  security_group_id            = aws_security_group.kms[0].id
  description                  = "Functions with thaw"
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  referenced_security_group_id = aws_security_group.function[0].id
  tags                         = var.tags
}

resource "aws_vpc_endpoint" "kms" {
  count = var.create_kms_endpoint && local.use_kms ? 1 : 0

  vpc_id              = var.vpc_id
  vpc_endpoint_type   = "Interface"
  service_name        = "com.amazonaws.${data.aws_region.this.id}.kms"
  private_dns_enabled = true
  subnet_ids          = var.subnet_ids
  security_group_ids  = [aws_security_group.kms[0].id]
  tags                = merge(var.tags, { Name = "${var.name}-kms" })
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "DecryptKeys"
      Effect    = "Allow"
      Principal = { AWS = local.account }
      Action    = "kms:Decrypt"
      Resource  = local.kms_key_arn
    }]
  })
}

# What lets Lambda put a function into the VPC. The last statement keeps the
# function's own code from using it:
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html
locals {
  ec2 = "arn:${data.aws_partition.this.partition}:ec2:${data.aws_region.this.id}:${data.aws_caller_identity.this.account_id}"

  network_policy = { for name in [local.demo, local.warmup] : name => jsonencode({
    Version = "2012-10-17"
    Statement = concat([
      {
        Sid      = "DescribeHasNoResources"
        Effect   = "Allow"
        Action   = ["ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"]
        Resource = ["*"]
      },
      {
        Sid    = "AttachToTheSubnets"
        Effect = "Allow"
        Action = [
          "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface",
          "ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses",
        ]
        Resource = concat(
          ["${local.ec2}:network-interface/*"],
          [for id in var.subnet_ids : "${local.ec2}:subnet/${id}"],
          ["${local.ec2}:security-group/${one(aws_security_group.function[*].id)}"],
        )
      },
      ], [{
        Sid    = "NotByTheCodeItself"
        Effect = "Deny"
        Action = [
          "ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface",
          "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses",
        ]
        Resource  = ["*"]
        Condition = { ArnEquals = { "lambda:SourceFunctionArn" = "${local.functions}:${name}" } }
    }])
  }) if local.in_vpc }
}

resource "aws_iam_role_policy" "demo_network" {
  count = var.create_demo && local.in_vpc ? 1 : 0

  name   = "network"
  role   = aws_iam_role.demo[0].name
  policy = local.network_policy[local.demo]
}

resource "aws_iam_role_policy" "warmup_network" {
  count = local.warmup_wanted && local.in_vpc ? 1 : 0

  name   = "network"
  role   = aws_iam_role.warmup[0].name
  policy = local.network_policy[local.warmup]
}
