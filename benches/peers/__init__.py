"""Side by side with the libraries that people use today, in one process, in turn."""
