terraform {
  required_version = ">= 1.9.0" # validations look at other variables

  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = ">= 4.4.0, < 6.0.0"
    }
  }
}
