"""uvicorn: in the foreground, in the background, in several workers."""
