variable "vault_addr" {
  description = "Vault's address, such as https://vault.example.com:8200."
  type        = string

  validation {
    condition     = can(regex("^https?://[^\\s/?#]+(/[^\\s?#]*)?$", var.vault_addr))
    error_message = "The address is http(s)://host[:port], such as https://vault.example.com:8200."
  }
}

variable "vault_namespace" {
  description = "VAULT_NAMESPACE: namespace of the login and of reads that name none."
  type        = string
  default     = null
}

variable "vault_cacert" {
  description = "VAULT_CACERT_BYTES: PEM text of the CA that signed Vault's certificate. Lambda allows 4 KB for all variables together."
  type        = string
  default     = null

  validation {
    condition     = var.vault_cacert == null || can(regex("^\\s*-----BEGIN CERTIFICATE-----", var.vault_cacert))
    error_message = "The CA is PEM text: -----BEGIN CERTIFICATE-----..."
  }
}

variable "vault_auth_provider" {
  description = "VAULT_AUTH_PROVIDER: mount of the aws auth method in Vault."
  type        = string
  default     = "aws"
}

variable "vault_auth_role" {
  description = "VAULT_AUTH_ROLE of the demo function."
  type        = string
  default     = "thaw-demo"
}

variable "vault_iam_server_id" {
  description = "VAULT_IAM_SERVER_ID: the value of X-Vault-AWS-IAM-Server-ID, which the mount should ask for."
  type        = string
  default     = null
}

variable "vault_sts_endpoint_region" {
  description = "VAULT_STS_ENDPOINT_REGION: region whose STS the login is signed for. Default: the global endpoint, which Vault expects by default."
  type        = string
  default     = null
}

variable "vault_assumed_role_arn" {
  description = "VAULT_ASSUMED_ROLE_ARN: role to assume before the login."
  type        = string
  default     = null

  validation {
    condition     = var.vault_assumed_role_arn == null || can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$", var.vault_assumed_role_arn))
    error_message = "The role is named by its ARN."
  }
}

variable "vpc_id" {
  description = "VPC to run the functions in. Needed for ElastiCache; null for functions outside a VPC."
  type        = string
  default     = null
}

variable "subnet_ids" {
  description = "Private subnets of vpc_id, in at least two availability zones, with a route to Vault."
  type        = list(string)
  default     = []

  validation {
    condition     = (var.vpc_id == null) == (length(var.subnet_ids) == 0)
    error_message = "vpc_id and subnet_ids go together: give both or none."
  }
}

variable "vault_cidrs" {
  description = "Addresses of Vault that the functions' security group lets out to, at the port of vault_addr."
  type        = list(string)
  default     = ["0.0.0.0/0"]

  validation {
    condition     = alltrue([for c in var.vault_cidrs : can(cidrhost(c, 0))])
    error_message = "Addresses are CIDR blocks such as 10.0.0.0/16."
  }
}

variable "create_kms_endpoint" {
  description = "Make an interface endpoint for KMS in the VPC. Needed where its subnets have neither that nor a NAT."
  type        = bool
  default     = false

  validation {
    condition     = !var.create_kms_endpoint || var.vpc_id != null
    error_message = "create_kms_endpoint needs vpc_id and subnet_ids."
  }
}
