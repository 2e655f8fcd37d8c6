"""The built-in artifacts: one file each."""
