terraform {
  required_version = ">= 1.9.0" # validations look at other variables

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80.0, < 7.0.0"
    }
  }
}
