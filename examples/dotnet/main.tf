# The function with thaw's layer. Before: `make layer`, and the function's zip.

terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0.0, < 7.0.0" # earlier ones do not know the runtime
    }
  }
}

variable "vault_addr" {
  description = "Vault's address."
  type        = string
}

variable "package" {
  description = "Zip of the function."
  type        = string
}

module "thaw" {
  source = "../../terraform/aws"

  vault_addr          = var.vault_addr
  vault_iam_server_id = "vault.example.com" # as the mount's iam_server_id_header_value
  layers              = ["arm64"]
}

resource "aws_iam_role" "this" {
  name = "my-function"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Principal = { Service = "lambda.amazonaws.com" }, Action = "sts:AssumeRole" }]
  })
}

resource "aws_iam_role_policy_attachment" "logs" {
  role       = aws_iam_role.this.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
}

resource "aws_lambda_function" "this" {
  function_name    = "my-function"
  role             = aws_iam_role.this.arn
  runtime          = "dotnet10"
  handler          = "Function::Example.Function::Handler"
  architectures    = ["arm64"]
  filename         = var.package
  source_code_hash = filebase64sha256(var.package)
  layers           = [module.thaw.layer_arns["arm64"]]
  memory_size      = 256
  timeout          = 10

  environment {
    variables = merge(module.thaw.environment, { VAULT_AUTH_ROLE = "my-function" })
  }
}

output "role_arn" {
  description = "bound_iam_principal_arn of the role in Vault."
  value       = aws_iam_role.this.arn
}
