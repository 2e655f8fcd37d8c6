"""The built-in memory artifacts."""
