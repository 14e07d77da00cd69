# The texts of policies, made of nothing but variables, so that they can be
# looked at, and tried in a real Vault, without a provider.

terraform {
  required_version = ">= 1.9.0"
}

variable "secrets" {
  description = "What may be read: KV mounts with their version and paths in them. A path that ends in / is a folder; an empty one the whole mount."
  type = list(object({
    mount   = string
    version = optional(number, 2)
    paths   = list(string)
  }))
}

variable "list" {
  description = "Allow lists and metadata, too."
  type        = bool
  default     = false
}

variable "events" {
  description = "Allow subscribing to changes of the secrets, and listing them: Vault Enterprise only."
  type        = bool
  default     = false
}

variable "openbao" {
  description = "Allow lists with metadata of whole folders, which OpenBao alone has, and with list the recursive ones, too. Vault refuses such a policy."
  type        = bool
  default     = false
}

locals {
  # A folder is a prefix, anything else one secret.
  paths = flatten([for s in var.secrets : [for p in s.paths : {
    mount   = trim(s.mount, "/")
    version = s.version
    path    = p == "" || endswith(p, "/") ? "${trimprefix(p, "/")}*" : trim(p, "/")
  }]])

  # Vault sends an event to who may list the path that was written, and
  # subscribe to it: https://developer.hashicorp.com/vault/docs/concepts/events
  # Of the rules that match a path only the most specific counts, so these
  # rights stand in the secrets' own rules.
  hear = var.events ? ["list", "subscribe"] : []
  list = var.list ? ["list"] : []

  # https://openbao.org/docs/rfcs/scan-operation
  scan = var.list && var.openbao ? ["scan"] : []

  secrets = flatten([for p in local.paths : p.version == 1 ? [
    { path = "${p.mount}/${p.path}", capabilities = distinct(concat(["read"], local.list, local.hear)) },
    ] : concat(
    [
      { path = "${p.mount}/data/${p.path}", capabilities = concat(["read"], local.hear) },
      { path = "${p.mount}/subkeys/${p.path}", capabilities = ["read"] },
    ],
    var.list || var.events ? [{ path = "${p.mount}/metadata/${p.path}", capabilities = distinct(concat(var.list ? ["read", "list"] : [], local.scan, local.hear)) }] : [],
    var.openbao && endswith(p.path, "*") ? [{ path = "${p.mount}/detailed-metadata/${p.path}", capabilities = concat(["list"], local.scan) }] : [],
    var.events ? [for kind in ["delete", "undelete", "destroy"] : { path = "${p.mount}/${kind}/${p.path}", capabilities = local.hear }] : [],
  )])

  rules = concat(
    local.secrets,
    # What thaw asks of its own token. In Vault's default policy as well, for
    # tokens that have it.
    [
      { path = "sys/capabilities-self", capabilities = ["update"] },
      { path = "auth/token/lookup-self", capabilities = ["read"] },
      { path = "auth/token/renew-self", capabilities = ["update"] },
      { path = "auth/token/revoke-self", capabilities = ["update"] },
    ],
    var.events ? [{ path = "sys/events/subscribe/kv*", capabilities = ["read"] }] : [],
  )
}

output "policy" {
  description = "The policy in HCL."
  value = join("\n", [for r in local.rules : join("", [
    "path ${jsonencode(r.path)} {\n  capabilities = ${jsonencode(r.capabilities)}\n",
    contains(r.capabilities, "subscribe") ? "  subscribe_event_types = [\"kv*\"]\n" : "",
    "}\n",
  ])])
}
