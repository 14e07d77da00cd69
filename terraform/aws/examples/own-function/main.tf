# The layer, attached to a function of your own.
# Before: make layer

terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80.0, < 7.0.0"
    }
  }
}

variable "vault_addr" {
  description = "Vault's address."
  type        = string
}

variable "package" {
  description = "Zip of your function's code."
  type        = string
}

variable "vault_auth_role" {
  description = "The role in Vault that the function logs in as."
  type        = string
  default     = "my-function"
}

module "thaw" {
  source = "../.."

  vault_addr          = var.vault_addr
  vault_iam_server_id = "vault.example.com" # as the mount's iam_server_id_header_value: see terraform/vault
  layers              = ["arm64"]
}

resource "aws_iam_role" "mine" {
  name = "my-function"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Principal = { Service = "lambda.amazonaws.com" }, Action = "sts:AssumeRole" }]
  })
}

resource "aws_iam_role_policy_attachment" "logs" {
  role       = aws_iam_role.mine.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
}

resource "aws_lambda_function" "mine" {
  function_name    = "my-function"
  role             = aws_iam_role.mine.arn
  runtime          = "python3.13"
  handler          = "app.handler"
  architectures    = ["arm64"]
  filename         = var.package
  source_code_hash = filebase64sha256(var.package)
  layers           = [module.thaw.layer_arns["arm64"]]

  environment {
    variables = merge(module.thaw.environment, { VAULT_AUTH_ROLE = var.vault_auth_role })
  }
}

output "role_arn" {
  description = "Let this role log in to Vault as vault_auth_role."
  value       = aws_iam_role.mine.arn
}
