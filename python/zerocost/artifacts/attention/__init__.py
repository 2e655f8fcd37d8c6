"""The built-in attention artifacts."""
