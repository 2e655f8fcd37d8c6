"""The built-in parallel artifacts."""
