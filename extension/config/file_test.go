package config_test

// proxyFile is a Vault Proxy configuration that uses everything thaw knows.
const proxyFile = `
vault {
  address         = "https://vault.example.com:8200/base/"
  namespace       = "/team/a/"
  ca_cert         = "/etc/ca.pem"
  ca_path         = "/etc/ca"
  client_cert     = "/etc/client.pem"
  client_key      = "/etc/client.key"
  tls_server_name = "vault"
  tls_skip_verify = "false"
  retry {
    num_retries = 5
  }
}

cache {
  cache_static_secrets = true
  static_secret_token_capability_refresh_interval = "1d"
  static_secret_token_capability_refresh_behavior = "pessimistic"
}

api_proxy {
  use_auto_auth_token = "force"
  enforce_consistency = "never"
  when_inconsistent   = "retry"
  prepend_configured_namespace = true
}

listener "tcp" {
  address       = "127.0.0.1:8100"
  tls_disable   = true
  require_request_header = true
}

listener "tcp" {
  address       = "127.0.0.1:8101"
  tls_cert_file = "/etc/cert.pem"
  tls_key_file  = "/etc/key.pem"
}

listener "unix" {
  address = "/run/thaw.sock"
}

auto_auth {
  method "aws" {
    mount_path = "auth/aws-prod/"
    namespace  = "team/b"
    config = {
      type         = "iam"
      role         = "orders"
      header_value = "vault.example.com"
      region       = "eu-west-1"
    }
  }
}

log_level = "debug"
`
