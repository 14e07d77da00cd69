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
  description = "Allow subscribing to KV events: Vault Enterprise only."
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

  rules = concat(
    flatten([for p in local.paths : p.version == 1 ? [
      { path = "${p.mount}/${p.path}", capabilities = var.list ? ["read", "list"] : ["read"] },
      ] : concat(
      [
        { path = "${p.mount}/data/${p.path}", capabilities = ["read"] },
        { path = "${p.mount}/subkeys/${p.path}", capabilities = ["read"] },
      ],
      var.list ? [{ path = "${p.mount}/metadata/${p.path}", capabilities = ["read", "list"] }] : [],
    )]),
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

  # Events are sent for paths on which the subscriber has "subscribe":
  # https://developer.hashicorp.com/vault/docs/concepts/events
  events = <<-EOT
    path "*" {
      capabilities          = ["list", "subscribe"]
      subscribe_event_types = ["kv*"]
    }
  EOT
}

output "policy" {
  description = "The policy in HCL."
  value = join("\n", concat(
    [for r in local.rules : "path ${jsonencode(r.path)} {\n  capabilities = ${jsonencode(r.capabilities)}\n}\n"],
    var.events ? [local.events] : [],
  ))
}
