"""What the server saw, and who is told."""
