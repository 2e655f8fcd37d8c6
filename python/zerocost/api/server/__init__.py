"""uvicorn in the foreground, in the background, and in several worker processes."""
