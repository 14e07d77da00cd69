terraform {
  required_version = ">= 1.9.0" # validations look at other variables

  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = ">= 4.30.0, < 5.0.0"
    }
  }
}
