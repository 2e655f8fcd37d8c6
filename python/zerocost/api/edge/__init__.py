"""What stands around the app: errors, who may call, the access log."""
