variable "name" {
  description = "Name of the function app, and prefix of the other names."
  type        = string
  default     = "thaw"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,17}[a-z0-9]$", var.name))
    error_message = "A name is 3 to 19 lower-case letters, digits and dashes; a storage account is named after it."
  }
}

variable "resource_group_name" {
  description = "Resource group to make everything in."
  type        = string
}

variable "location" {
  description = "Region, such as westeurope."
  type        = string
}

variable "plan" {
  description = "Hosting plan: flex (Flex Consumption: scales to nothing, may freeze) or premium (Elastic Premium: always warm)."
  type        = string
  default     = "flex"

  validation {
    condition     = contains(["flex", "premium"], var.plan)
    error_message = "The plan is flex or premium."
  }
}

variable "premium_sku" {
  description = "Size of the Premium plan: EP1, EP2 or EP3."
  type        = string
  default     = "EP1"

  validation {
    condition     = contains(["EP1", "EP2", "EP3"], var.premium_sku)
    error_message = "The size is EP1, EP2 or EP3."
  }
}

variable "instance_memory_mb" {
  description = "Memory of a Flex instance in MB: 512, 2048 or 4096."
  type        = number
  default     = 2048

  validation {
    condition     = contains([512, 2048, 4096], var.instance_memory_mb)
    error_message = "Flex has instances of 512, 2048 and 4096 MB."
  }
}

variable "maximum_instances" {
  description = "Most instances of a Flex app."
  type        = number
  default     = 100

  validation {
    condition     = var.maximum_instances >= 40 && var.maximum_instances <= 1000
    error_message = "Flex allows a maximum from 40 to 1000 instances."
  }
}

variable "package" {
  description = "Zip of the function app (functions/azure) to deploy. Null: deploy it another way."
  type        = string
  default     = null
}

variable "subnet_id" {
  description = "Subnet to integrate the app with: delegated to Microsoft.App/environments for flex, to Microsoft.Web/serverFarms for premium. Null outside a virtual network."
  type        = string
  default     = null
}

variable "storage_account_name" {
  description = "Storage account of the Functions host. Null: one is created, without keys."
  type        = string
  default     = null
}

variable "log_analytics_workspace_id" {
  description = "Workspace for Application Insights. Null: no Application Insights."
  type        = string
  default     = null
}

variable "environment" {
  description = "Further app settings by name. They win over those of this module."
  type        = map(string)
  default     = {}
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}
