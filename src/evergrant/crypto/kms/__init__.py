"""Where master keys are: in a setting, in AWS KMS, in the transit engine of OpenBao or HashiCorp Vault."""
